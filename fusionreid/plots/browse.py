"""A test set to look around in: rankings that a reader switches between, and maps of a pair."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from ..data import Dataset, Record
from ..evaluation.distances import FeatureDistances, KnownDistances
from ..evaluation.evaluate import retrieve
from ..evaluation.explain import gradcam, model_inputs, record_attention, similarity_targets, stages
from ..evaluation.ranking import Labels, RankedList, Ranking, nearest_by, rank_by
from ..evaluation.reranking import RerankedDistances, Reranking
from ..models.fusionreid import FusionReID


class Switches(NamedTuple):
    """What a gallery is ranked by."""

    feature: str = "all"
    cameras: bool = True  # False: without the camera embedding, as if training had seen no camera
    weight: float = 1.0  # share of the original distance in k-reciprocal re-ranking; 1 is none


class Rankings:
    """The rankings of a test set by all `Switches`, each computed at its first use, then kept."""

    def __init__(self, model: FusionReID, dataset: Dataset, cache_directory: str | Path):
        self.model = model
        self.dataset = dataset
        # By whether the camera embedding is used.
        self.retrieval = {
            use: retrieve(model, dataset, cache_directory=cache_directory, use_cameras=use)
            for use in (True, False)
        }
        self.query = self.retrieval[True].query  # labels
        self.gallery = self.retrieval[True].gallery
        # Here and not on the class, so that what is kept goes with the object.
        self._reranked = cache(self._reranked)
        self.ranking = cache(self.ranking)

    def _reranked(self, feature: str, cameras: bool) -> RerankedDistances:
        """Distances whose neighbours, which take longest, serve all weights."""
        return RerankedDistances(*self.retrieval[cameras].select(feature), Reranking())

    def distances(self, switches: Switches) -> FeatureDistances | RerankedDistances:
        """The distances by which the gallery is ranked."""
        reranked = self._reranked(switches.feature, switches.cameras)
        if switches.weight == 1:
            return reranked.original
        return reranked.with_weight(switches.weight)

    def ranking(self, switches: Switches) -> Ranking:
        """The accuracy over the whole test set."""
        return rank_by(self.distances(switches), self.query, self.gallery)

    def listed(
        self, queries: Sequence[int], switches: Switches, *, top: int, among=True
    ) -> tuple[RankedList, np.ndarray]:
        """The first images of the rankings of n queries, and their cosines (n, top).

        `among` (G,) bool are the gallery images to choose from. Where fewer than `top` are left,
        the list has -1, and the cosine means nothing.
        """
        everything = slice(0, len(self.gallery.ids))
        distances = self.distances(switches).block(np.asarray(queries), everything)
        allowed = KnownDistances(np.where(among, distances, np.inf))
        labels = Labels(self.query.ids[queries], self.query.cameras[queries])
        ranked = nearest_by(allowed, labels, self.gallery, top=top)
        query, gallery = self.retrieval[switches.cameras].select(switches.feature)
        cosines = einsum(query[queries], gallery[ranked.gallery], "n d, n top d -> n top")
        return ranked, cosines


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

    Args:
        pair: the records of the two images.
        stage: branch and stage of the Grad-CAM, as in `explain.stages`.
        unit: whose attention, a key of `explain.record_attention`.
        head: the number of the head, from 1; 0 is the mean over the heads.
        use_cameras: False leaves the camera embedding out.

    Returns:
        The images (2, 3, H, W), normalised; Grad-CAM (2, h, w) of the similarity of each to the
        other; attention (2, h, w).
    """
    images, cameras = model_inputs(model, pair)
    if not use_cameras:
        cameras = torch.full_like(cameras, -1)
    targets = similarity_targets(model, images.flip(0), cameras.flip(0))  # each one's is the other
    branch, name = stage
    place = stages(model, branch, images[:1])[name]
    cam = gradcam(model, place, images, targets, cameras)
    with torch.no_grad(), record_attention(model) as weights:
        model.embed(images, cameras)
    heads = weights[unit].cpu()
    attention = heads[:, head - 1] if head else heads.mean(dim=1)
    return images.cpu(), cam, attention
