"""Every picture of the notebooks, in one style.

Each function takes plain arrays or DataFrames, computes nothing slow and returns a Figure, whose attribute `drawn`
holds the numbers drawn; `save` writes the PNG and those numbers as its twin CSV.
"""

from .comparisons import backbone_pairs, component_bars, cost_parity, signs
from .curves import cmc_curves, depth_curves, dimension_curves, histograms, likeness, map_by_epoch, training_curves
from .grids import attention_heads, batch_sheet, contact_sheet, heat_maps, retrieved_lists
from .style import save

__all__ = [
    "attention_heads", "backbone_pairs", "batch_sheet", "cmc_curves", "component_bars", "contact_sheet", "cost_parity",
    "depth_curves", "dimension_curves", "heat_maps", "histograms", "likeness", "map_by_epoch", "retrieved_lists",
    "save", "signs", "training_curves",
]  # fmt: skip
