"""Features of query and gallery, and how well they rank: CMC, mAP, mINP of each feature and of all together."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data import Dataset, ImageCache, Record
from ..models.fusionreid import FusionReID
from ..options import expect, one_of
from .embedding import device_of, embed_batches, normalised
from .ranking import Labels, RankedList, Ranking, distances_between, nearest_by, rank_by


class Retrieval(NamedTuple):
    """What is ranked: the features of query and gallery, and who is on the images."""

    query_features: dict[str, np.ndarray]  # name -> (Q, width) float32, as the model gives them
    gallery_features: dict[str, np.ndarray]  # name -> (G, width) float32
    query: Labels
    gallery: Labels

    def select(self, feature: str = "all") -> tuple[np.ndarray, np.ndarray]:
        """One feature of query (Q, D) and gallery (G, D), or "all" side by side, L2-normalised."""
        one_of("feature", feature, ("all", *self.query_features))
        names = list(self.query_features) if feature == "all" else [feature]
        query = np.hstack([self.query_features[name] for name in names])
        gallery = np.hstack([self.gallery_features[name] for name in names])
        return normalised(query), normalised(gallery)

    def rank(
        self, feature: str = "all", *, max_rank: int = 50, rerank=None, device=None
    ) -> Ranking:
        """CMC, mAP and mINP of one feature, or of "all" side by side; options as of `evaluate_ranking`."""
        distances = distances_between(*self.select(feature), rerank, device)
        return rank_by(distances, self.query, self.gallery, max_rank)

    def nearest(
        self, feature: str = "all", *, queries=None, top: int = 10, rerank=None, device=None
    ) -> RankedList:
        """The first `top` gallery images for some `queries` (n,), by default for all, as `rank` ranks them."""
        distances = distances_between(*self.select(feature), rerank, device)
        return nearest_by(distances, self.query, self.gallery, queries=queries, top=top)


def retrieve(
    model: FusionReID,
    dataset: Dataset,
    *,
    cache_directory: str | Path,
    use_cameras: bool = True,
    **options,
) -> Retrieval:
    """Every feature of a data set's query and gallery, in evaluation mode.

    `use_cameras=False` leaves the camera embedding out, as for cameras that training has not seen. `options` are of
    `embed_batches`: `batch_size` (128), `precision` ("float32", "bf16", "fp16"), `progress` (False), `processes` (1).
    """
    expect("model", model, FusionReID)
    widths = list(model.widths.values())

    def features(records: Sequence[Record], cameras: np.ndarray) -> dict[str, np.ndarray]:
        seen = use_cameras & (cameras < model.num_cameras)
        images = ImageCache(records, model.config.image_size, cache_directory)
        batches = embed_batches(model, images, np.where(seen, cameras, -1), **options)
        vectors = np.concatenate([part for _, part in batches])
        parts = np.split(vectors, np.cumsum(widths)[:-1], axis=1)
        return dict(zip(model.widths, parts, strict=True))

    query, gallery = Labels.of(dataset.query), Labels.of(dataset.gallery)
    query_features = features(dataset.query, query.cameras)
    gallery_features = features(dataset.gallery, gallery.cameras)
    return Retrieval(query_features, gallery_features, query, gallery)


def evaluate(
    model: FusionReID,
    dataset: Dataset,
    *,
    cache_directory: str | Path,
    features: Sequence[str] | None = None,
    rerank=None,
    **options,
) -> dict[str, Ranking]:
    """Ranks the query against the gallery by `features`, by default "all" of the model's and each one alone.

    `rerank` is as of `evaluate_ranking`, `cache_directory` and `options` are as of `retrieve`.
    """
    retrieval = retrieve(model, dataset, cache_directory=cache_directory, **options)
    names = features or ("all", *model.widths)
    return {name: retrieval.rank(name, rerank=rerank, device=device_of(model)) for name in names}


def cross_domain(model: FusionReID, datasets: dict[str, Dataset], **options) -> pd.DataFrame:
    """A model on several data sets, with and without its camera embedding: one row each.

    With the embedding, a camera of another data set takes the embedding of the training camera of the same number;
    without it, every camera is an unseen one. `options` go to `evaluate`, `cache_directory` among them.
    """
    rows = []
    for name, dataset in datasets.items():
        for use_cameras in (True, False) if model.num_cameras else (False,):
            ranking = evaluate(
                model, dataset, features=["all"], use_cameras=use_cameras, **options
            )["all"]
            rows.append({"dataset": name, "camera embedding": use_cameras} | ranking.summary())
    return pd.DataFrame(rows)


def camera_choices(model: FusionReID, dataset: Dataset, **options) -> pd.DataFrame:
    """What the choice of camera does to accuracy: a row for each embedding that every image is given.

    The choices are that of its own camera; none, as `embed` does without cameras; the mean of all cameras'; and a wrong
    one, the next camera's. `options` go to `evaluate`, `cache_directory` among them. Raises ValueError for a model
    without a camera embedding.
    """
    if not model.num_cameras or "transformer" not in model.branches:
        raise ValueError(
            "camera_choices: expected a model with a camera embedding, found one without"
        )
    model = copy.deepcopy(model)
    place = model.branches["transformer"].camera_embedding.data  # (cameras, 1, width)
    own, rows = place.clone(), []
    choices = {
        "its own": own,
        "none": 0 * own,
        "the mean": own.mean(0, keepdim=True),
        "a wrong one": own.roll(1, 0),
    }
    for name, embedding in choices.items():
        place.copy_(embedding.expand_as(place))
        rows.append(
            {"camera": name}
            | evaluate(model, dataset, features=["all"], **options)["all"].summary()
        )
    return pd.DataFrame(rows)
