"""Features of query and gallery, and how well each of them, and all together, rank (Sec. IV.A)."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

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

    @classmethod
    def of(
        cls, dataset: Dataset, features: Callable[[Sequence[Record]], dict[str, np.ndarray]]
    ) -> "Retrieval":
        """What is ranked of a data set; `features` gives those of a split's records."""
        splits = dataset.query, dataset.gallery
        return cls(*map(features, splits), *map(Labels.of, splits))

    def select(self, feature: str = "all") -> tuple[np.ndarray, np.ndarray]:
        """One feature of query (Q, D) and gallery (G, D), or "all" side by side, L2-normalised."""
        one_of("feature", feature, ("all", *self.query_features))
        names = list(self.query_features) if feature == "all" else [feature]
        query = np.hstack([self.query_features[name] for name in names])
        gallery = np.hstack([self.gallery_features[name] for name in names])
        return normalised(query), normalised(gallery)

    def rank(self, feature: str = "all", *, rerank=None, device=None) -> Ranking:
        """CMC, mAP and mINP of one feature, or of "all"; options as of `evaluate_ranking`."""
        distances = distances_between(*self.select(feature), rerank, device)
        return rank_by(distances, self.query, self.gallery)

    def nearest(self, feature: str = "all", *, top: int = 10, rerank=None) -> RankedList:
        """The first `top` gallery images for every query, as `rank` ranks them."""
        distances = distances_between(*self.select(feature), rerank)
        return nearest_by(distances, self.query, self.gallery, top)


def retrieve(
    model: FusionReID,
    dataset: Dataset,
    *,
    cache_directory: str | Path,
    use_cameras: bool = True,
    **options,
) -> Retrieval:
    """Every feature of a data set's query and gallery, in evaluation mode.

    Args:
        cache_directory: where decoded images are kept.
        use_cameras: False leaves the camera embedding out, as for cameras unseen in training.
        options: of `embed_batches`: `batch_size`, `precision`, `progress`, `processes`.
    """
    expect("model", model, FusionReID)
    ends = np.cumsum(list(model.widths.values()))[:-1]  # where one feature ends and the next begins

    def features(records: Sequence[Record]) -> dict[str, np.ndarray]:
        cameras = Labels.of(records).cameras
        is_seen = use_cameras & (cameras < model.num_cameras)
        images = ImageCache(records, model.config.image_size, cache_directory)
        batches = embed_batches(model, images, np.where(is_seen, cameras, -1), **options)
        vectors = np.concatenate([vectors for _, vectors in batches])
        return dict(zip(model.widths, np.split(vectors, ends, axis=1), strict=True))

    return Retrieval.of(dataset, features)


def evaluate(
    model: FusionReID,
    dataset: Dataset,
    *,
    cache_directory: str | Path,
    features: Sequence[str] | None = None,
    rerank=None,
    **options,
) -> dict[str, Ranking]:
    """Ranks the gallery for each query by each of `features`: by default "all", then each alone.

    `rerank` is as of `evaluate_ranking`; `options` are as of `retrieve`.
    """
    retrieval = retrieve(model, dataset, cache_directory=cache_directory, **options)
    return {
        name: retrieval.rank(name, rerank=rerank, device=device_of(model))
        for name in features or ("all", *model.widths)
    }


def cross_domain(model: FusionReID, datasets: dict[str, Dataset], **options) -> pd.DataFrame:
    """A model on several data sets, with and without its camera embedding: a row each.

    With the embedding, a camera of another data set takes the embedding of the training camera of
    the same number. Without it, every camera is an unseen one; a set without cameras has this row
    alone. `options` go to `evaluate`.
    """
    rows = []
    for name, dataset in datasets.items():
        has_both = model.num_cameras and dataset.num_cameras
        choices = (True, False) if has_both else (False,)
        for use_cameras in choices:
            rankings = evaluate(
                model, dataset, features=["all"], use_cameras=use_cameras, **options
            )
            row = {"dataset": name, "camera embedding": use_cameras}
            rows.append(row | rankings["all"].summary())
    return pd.DataFrame(rows)


def camera_choices(model: FusionReID, dataset: Dataset, **options) -> pd.DataFrame:
    """What the choice of camera does to accuracy: a row for each embedding given to every image.

    The choices are the embedding of the image's own camera; none, as `embed` does without cameras;
    the mean over the cameras; and a wrong one, that of the camera before. `options` go to
    `evaluate`. Raises ValueError for a model without a camera embedding.
    """
    if not model.num_cameras:
        raise ValueError(
            "camera_choices: expected a model with a camera embedding, found one without"
        )
    model = copy.deepcopy(model)
    embedding = model.branches["transformer"].camera_embedding.data  # (cameras, 1, width)
    own = embedding.clone()
    choices = {
        "its own": own,
        "none": torch.zeros_like(own),
        "the mean": own.mean(dim=0, keepdim=True),
        "a wrong one": own.roll(1, dims=0),
    }
    rows = []
    for name, chosen in choices.items():
        embedding.copy_(chosen.expand_as(embedding))
        rankings = evaluate(model, dataset, features=["all"], **options)
        rows.append({"camera": name} | rankings["all"].summary())
    return pd.DataFrame(rows)
