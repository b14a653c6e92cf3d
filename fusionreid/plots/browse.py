"""A test set to look around in: every ranking that a reader can switch to, each kept, and why a pair was matched."""

from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import Dataset, Record
from ..evaluation.distances import KnownDistances
from ..evaluation.evaluate import retrieve
from ..evaluation.explain import gradcam, load, record_attention, similarity_targets, stages
from ..evaluation.ranking import RankedList, rank_by
from ..evaluation.reranking import RerankedDistances, Reranking
from ..models.fusionreid import FusionReID


class Switches(NamedTuple):
    """What a gallery is ranked by."""

    feature: str = "all"
    cameras: bool = True  # False: without the camera embedding, as if training had seen no camera
    weight: float = 1.0  # the share of the distance itself in k-reciprocal re-ranking; 1 is none


class Rankings:
    """The rankings of a test set by all `Switches`, computed when first asked for, so that a change is quick.

    `distances(switches)` are (Q, G) float32, by which the gallery is ranked, the last four of them kept;
    `ranking(switches)` is the accuracy over the whole set.
    """

    def __init__(self, model: FusionReID, dataset: Dataset, cache_directory: str | Path):
        self.model, self.dataset = model, dataset
        both = [
            retrieve(model, dataset, cache_directory=cache_directory, use_cameras=use)
            for use in (False, True)
        ]
        self.retrieval = both
        self.query, self.gallery = both[1].query, both[1].gallery  # labels
        self._reranked = cache(
            lambda feature, use: RerankedDistances(*both[use].select(feature), Reranking())
        )
        self.distances = lru_cache(maxsize=4)(self._distances)
        self.ranking = cache(
            lambda switches: rank_by(
                KnownDistances(self.distances(switches)), self.query, self.gallery
            )
        )

    def _distances(self, switches: Switches) -> np.ndarray:
        source = self._reranked(switches.feature, switches.cameras)
        if switches.weight == 1:
            source = source.original
        else:  # all weights share the neighbours, which take longest
            source = source.with_weight(switches.weight)
        return source.block(*(slice(0, size) for size in source.shape))

    def listed(self, query: int, switches: Switches, among=True) -> tuple[RankedList, np.ndarray]:
        """One query's list (1, n), nearest first, of the gallery images `among` (G,) bool, and their cosines (n,)."""
        features, gallery = self.retrieval[switches.cameras].select(switches.feature)
        match = self.gallery.ids == self.query.ids[query]
        shown = ~(match & (self.gallery.cameras == self.query.cameras[query])) & among
        order = np.argsort(self.distances(switches)[query], kind="stable")
        order = order[shown[order]]
        return RankedList(order[None], match[order][None]), gallery[order] @ features[query]


def pair_maps(
    model: FusionReID,
    pair: Sequence[Record],
    stage: tuple[str, str],
    unit: tuple[int, str, str],
    *,
    head: int = 0,
    use_cameras: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Why two images were matched, or not.

    `stage` is the branch and stage of the Grad-CAM, as in `explain.stages`; `unit` that of the attention, a key of
    `explain.record_attention`; `head` is from 1, 0 the mean over the heads.

    Returns the images (2, 3, H, W), normalised; Grad-CAM (2, h, w) of each one's similarity to the other; attention
    (2, h, w).
    """
    images, cameras = load(model, pair)
    cameras = cameras if use_cameras else torch.full_like(cameras, -1)
    targets = similarity_targets(model, images.flip(0), cameras.flip(0))
    cam = gradcam(model, stages(model, stage[0], images[:1])[stage[1]], images, targets, cameras)
    with torch.no_grad(), record_attention(model) as weights:
        model.embed(images, cameras)
    heads = weights[unit].cpu()
    return images.cpu(), cam, heads[:, head - 1] if head else heads.mean(dim=1)
