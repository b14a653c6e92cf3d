"""FusionReID: convolutional and transformeral features, unified for person re-identification."""

import importlib

from . import cost, data, released
from .config import PAPER, RELEASED, FusionConfig, ModelConfig
from .evaluate import embed
from .metrics import evaluate_ranking
from .model import build_model
from .rerank import k_reciprocal

__all__ = [
    "PAPER",
    "RELEASED",
    "FusionConfig",
    "ModelConfig",
    "build_model",
    "cost",
    "data",
    "embed",
    "evaluate_ranking",
    "experiments",
    "k_reciprocal",
    "released",
]
__version__ = "0.1.0"


def __getattr__(name: str):
    # On first use: `python -m fusionreid.experiments`, and its workers, must not find it imported by the package.
    if name == "experiments":
        return importlib.import_module("fusionreid.experiments")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
