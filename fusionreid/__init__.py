"""FusionReID: convolutional and transformeral features, unified for person re-identification."""

from . import data
from .config import PAPER, RELEASED, FusionConfig, ModelConfig
from .evaluation.embed import embed
from .evaluation.metrics import evaluate_ranking
from .evaluation.rerank import k_reciprocal
from .models import cost, released
from .models.fusionreid import build_model
from .paper import experiments
from .training.trained import load

__all__ = [
    "PAPER", "RELEASED", "FusionConfig", "ModelConfig", "build_model", "cost", "data", "embed", "evaluate_ranking",
    "experiments", "k_reciprocal", "load", "released",
]  # fmt: skip
__version__ = "0.1.0"
