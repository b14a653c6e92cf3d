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
from .ranking import Ranking, evaluate_ranking


class Retrieval(NamedTuple):
    """What is ranked: the features of query and gallery, and whose they are."""

    query_features: dict[str, np.ndarray]  # name -> (Q, width) float32, as the model gives them
    gallery_features: dict[str, np.ndarray]  # name -> (G, width) float32
    query_ids: np.ndarray  # (Q,) int64, as the cameras are
    gallery_ids: np.ndarray  # (G,)
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray

    def select(self, feature: str = "all") -> tuple[np.ndarray, ...]:
        """The first six arguments of `evaluate_ranking`, for one feature or for "all" side by side, L2-normalised."""
        one_of("feature", feature, ("all", *self.query_features))
        names = list(self.query_features) if feature == "all" else [feature]
        query, gallery = (
            normalised(np.hstack([features[name] for name in names])) for features in self[:2]
        )
        return query, gallery, *self[2:]


def labels(*splits: Sequence[Record]) -> list[np.ndarray]:
    """The identities of each split, then the cameras of each."""
    fields = ("identity", "camera")
    return [
        np.array([getattr(each, name) for each in records], np.int64)
        for name in fields
        for records in splits
    ]


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
    splits, ends, features = (
        (dataset.query, dataset.gallery),
        np.cumsum(list(model.widths.values()))[:-1],
        [],
    )
    for records in splits:
        cache = ImageCache(records, model.config.image_size, cache_directory)
        cameras = np.array([record.camera for record in records], np.int64)
        cameras[(cameras >= model.num_cameras) | (not use_cameras)] = -1
        vectors = np.concatenate(
            [part for _, part in embed_batches(model, cache, cameras, **options)]
        )
        features.append(dict(zip(model.widths, np.split(vectors, ends, axis=1), strict=True)))
    return Retrieval(*features, *labels(*splits))


def rank(retrieval: Retrieval, feature: str = "all", **options) -> Ranking:
    """CMC, mAP and mINP of one feature, or of "all" side by side; `options` go to `evaluate_ranking`."""
    return evaluate_ranking(*retrieval.select(feature), **options)


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
    options = {"rerank": rerank, "device": device_of(model)}
    return {name: rank(retrieval, name, **options) for name in features or ("all", *model.widths)}


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
