"""FusionReID: convolutional and transformeral features, unified for person re-identification."""

from . import data
from .config import PAPER, RELEASED, FusionConfig, ModelConfig
from .evaluation import verification
from .evaluation.embedding import embed
from .evaluation.evaluate import evaluate
from .evaluation.ranking import evaluate_ranking
from .evaluation.reranking import k_reciprocal
from .models import cost, released
from .models.fusionreid import build_model
from .paper import experiments
from .training.runs import make_run
from .training.train import train
from .training.trained import load

__all__ = [
    "PAPER",
    "RELEASED",
    "FusionConfig",
    "ModelConfig",
    "build_model",
    "cost",
    "data",
    "embed",
    "evaluate",
    "evaluate_ranking",
    "experiments",
    "k_reciprocal",
    "load",
    "make_run",
    "released",
    "train",
    "verification",
]
__version__ = "0.1.0"
