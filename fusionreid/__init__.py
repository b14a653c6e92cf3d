"""FusionReID: convolutional and transformeral features, unified for person re-identification."""

from .config import PAPER, RELEASED, FusionConfig, ModelConfig
from .evaluate import embed
from .metrics import evaluate_ranking
from .model import build_model

__all__ = ["PAPER", "RELEASED", "FusionConfig", "ModelConfig", "build_model", "embed", "evaluate_ranking"]
__version__ = "0.1.0"
