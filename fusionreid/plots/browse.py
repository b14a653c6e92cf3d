"""A test set to look around in: rankings that a reader switches between, and maps of a pair."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from ..data import Dataset, Record
from ..evaluation.distances import FeatureDistances, KnownDistances
from ..evaluation.embedding import evaluating
from ..evaluation.evaluate import Retrieval
from ..evaluation.explain import gradcam, model_inputs, record_attention, similarity_targets, stages
from ..evaluation.ranking import Labels, RankedList, Ranking, nearest_by, rank_by
from ..evaluation.reranking import RerankedDistances, Reranking, neighbours
from ..models.fusionreid import FusionReID


class Switches(NamedTuple):
    """What a gallery is ranked by."""

    feature: str = "all"
    cameras: bool = True  # False: without the camera embedding, as if training had seen no camera
    weight: float = 1.0  # share of the original distance in k-reciprocal re-ranking; 1 is none


class Rankings:
    """The rankings of a test set by all `Switches`, each computed at its first use, then kept.

    `retrieval` has the features of the set by whether the camera embedding is used.
    """

    def __init__(self, model: FusionReID, dataset: Dataset, retrieval: dict[bool, Retrieval]):
        self.model = model
        self.dataset = dataset
        self.retrieval = retrieval
        self.query = retrieval[True].query  # labels
        self.gallery = retrieval[True].gallery
        # Here and not on the class, so that what is kept goes with the object.
        self._reranked = cache(self._reranked)
        self.ranking = cache(self.ranking)

    def of_picture(self, path: Path) -> "Rankings":
        """The same gallery, asked for one picture: nobody knows the person or the camera."""
        record = Record(path, identity=-1, camera=-1)
        with evaluating(self.model):
            features = self.model(*model_inputs(self.model, [record])).features
        vectors = {name: vector.cpu().numpy() for name, vector in features.items()}
        query = Labels.of([record])
        retrieval = {
            use: known._replace(query_features=vectors, query=query)
            for use, known in self.retrieval.items()
        }
        return Rankings(self.model, replace(self.dataset, query=[record]), retrieval)

    def neighbours(self, feature: str, images: np.ndarray, count: int) -> np.ndarray:
        """The nearest of some images (n,) among these: (n, count), nearest first.

        Images are numbered through the queries, then the gallery.
        """
        vectors = np.vstack(self.retrieval[True].select(feature))[images]
        nearest, _ = neighbours(FeatureDistances(vectors, vectors), count + 1)
        return images[nearest[:, 1:]]  # the first is the image itself

    def _reranked(self, feature: str, cameras: bool) -> RerankedDistances:
        """Distances whose neighbours, which take longest, serve all weights."""
        return RerankedDistances(*self.retrieval[cameras].select(feature), Reranking())

    def distances(self, switches: Switches) -> FeatureDistances | RerankedDistances:
        """The distances by which the gallery is ranked."""
        if switches.weight == 1:
            return FeatureDistances(*self.retrieval[switches.cameras].select(switches.feature))
        return self._reranked(switches.feature, switches.cameras).with_weight(switches.weight)

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
        distances = self.distances(switches).block(np.asarray(queries))
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
