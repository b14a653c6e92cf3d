"""FusionReID: convolutional and transformeral features, unified for person re-identification."""

from . import cost, data, experiments, released
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
