"""What a model has to beat: a colour histogram, and the network before training."""

from __future__ import annotations

import numpy as np
from einops import rearrange

from ..data import Dataset, ImageCache
from ..models.fusionreid import build_model
from ..training.runs import RunConfig
from ..training.train import seed_everything
from .evaluate import evaluate
from .metrics import Ranking, evaluate_ranking


def histogram(images: np.ndarray, *, bins: int = 8, stripes: int = 6) -> np.ndarray:
    """Colour histograms of horizontal stripes: uint8 (N, H, W, 3) to (N, stripes * 3 * bins), L2-normalised.

    Each channel of each of `stripes` stripes has a histogram of its own; square roots make distances Hellinger's.
    """
    rows = images.shape[1] // stripes
    levels = rearrange(
        images[:, : rows * stripes].astype(np.int64) * bins // 256, "n (s h) w c -> n s (h w) c", s=stripes
    )
    counts = np.stack([(levels == level).mean(axis=2) for level in range(bins)], axis=-1)  # (n, s, c, bins)
    vectors = np.sqrt(rearrange(counts, "n s c b -> n (s c b)"))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rank_by_histogram(dataset: Dataset, image_size: tuple[int, int], cache_directory, **options) -> Ranking:
    """The gallery ranked by colour histograms alone."""
    query, gallery = (
        ImageCache(records, image_size, cache_directory).images for records in (dataset.query, dataset.gallery)
    )
    labels = [
        [getattr(record, field) for record in records]
        for field in ("identity", "camera")
        for records in (dataset.query, dataset.gallery)
    ]
    return evaluate_ranking(histogram(query), histogram(gallery), *labels, **options)


def rank_untrained(run: RunConfig, dataset: Dataset, cache_directory, **options) -> Ranking:
    """The gallery ranked by the run's network with its first, random weights."""
    seed_everything(run.seed)
    model = build_model(run.model, dataset.num_identities, dataset.num_cameras)
    return evaluate(model, dataset, cache_directory=cache_directory, features=["all"], **options)["all"]
