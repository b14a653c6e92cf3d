"""Every picture of the notebooks, in one style.

Each function takes plain arrays or DataFrames, computes nothing slow, and returns a Figure. Its
attribute `drawn` holds the numbers drawn. `save` writes the PNG, and these numbers as its twin CSV.
"""

from .comparisons import attention_and_mean, differences, plane
from .curves import (
    cmc_curves,
    difference_curves,
    feature_curves,
    map_by_epoch,
    probe_curves,
    training_curves,
)
from .grids import attention_heads, batch_sheet, contact_sheet, heat_maps, retrieved_lists
from .roc import reliability_curves, roc_curves
from .style import save

__all__ = [
    "attention_and_mean",
    "attention_heads",
    "batch_sheet",
    "cmc_curves",
    "contact_sheet",
    "difference_curves",
    "differences",
    "feature_curves",
    "heat_maps",
    "map_by_epoch",
    "plane",
    "probe_curves",
    "reliability_curves",
    "retrieved_lists",
    "roc_curves",
    "save",
    "training_curves",
]
