"""Features of a split, and what they are worth: CMC, mAP, mINP of each of the six features and of all together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..data import Dataset, ImageCache, Record, normalise, prefetch
from ..data.cache import load_images
from ..models.fusionreid import FusionReID
from ..processes import bars
from ..training import checkpoint
from .features import FeatureStore
from .metrics import Ranking, evaluate_ranking

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """The mixed precision of a run: "float32" (off), "bf16" or "fp16"."""
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision], enabled=precision != "float32")


class Features(NamedTuple):
    """`features` by name, (N, width) float32 numpy arrays as the model gives them; identities and cameras (N,)."""

    features: dict[str, np.ndarray]
    identities: np.ndarray
    cameras: np.ndarray

    def get(self, name: str) -> np.ndarray:
        """One feature, or "all" side by side, L2-normalised: (N, width)."""
        chosen = np.concatenate(list(self.features.values()), axis=1) if name == "all" else self.features[name]
        return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-12)


def device_of(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


def default_device() -> torch.device:
    """The GPU, if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.inference_mode()
def _forward(
    model: FusionReID, images: Tensor, cameras: Tensor | None, precision: str
) -> Callable[[], dict[str, np.ndarray]]:
    """uint8 images (B, 3, H, W) to a function that waits for their features by name; a GPU computes meanwhile."""
    device = device_of(model)
    with autocast(device, precision):
        images = normalise(images.to(device, non_blocking=True))
        output = model(images, cameras if cameras is None else cameras.to(device, non_blocking=True))
    features = {name: feature.float().to("cpu", non_blocking=True) for name, feature in output.features.items()}
    copied = torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None

    def wait() -> dict[str, np.ndarray]:
        if copied:
            copied.synchronize()
        return {name: feature.numpy().copy() for name, feature in features.items()}  # of pinned memory, which is scarce

    return wait


def _stream(
    model: FusionReID,
    records: Sequence[Record],
    cache: ImageCache,
    *,
    start: int = 0,
    use_cameras: bool = True,
    batch_size: int = 128,
    precision: str = "float32",
    progress: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """The features of one batch after another, in evaluation mode; at the end the model's mode is put back."""
    cameras = np.array([record.camera for record in records], dtype=np.int64)
    known = torch.from_numpy(np.where(cameras < model.num_cameras, cameras, -1))
    was_training = model.training
    model.eval()
    try:
        starts = range(start, len(records), batch_size)
        batches = [range(first, min(first + batch_size, len(records))) for first in starts]
        bar = tqdm(batches, desc="embed", disable=not bars(progress), leave=False)
        waiting = None  # the batch before: a GPU has the next one to do while the host takes it
        for indices, images in prefetch(cache, bar, device_of(model)):
            following = _forward(model, images, known[indices] if use_cameras else None, precision)
            if waiting:
                yield waiting()
            waiting = following
        if waiting:
            yield waiting()
    finally:
        model.train(was_training)


def extract(model: FusionReID, records: Sequence[Record], cache: ImageCache, **options) -> Features:
    """Every feature of every image, in evaluation mode.

    Args:
        records: the images; `cache` holds them in the same order.
        options: `use_cameras` (True; False leaves the camera embedding out, as for cameras that training has not
            seen), `batch_size` (128), `precision` ("float32"), `progress` (False).
    """
    chunks = list(_stream(model, records, cache, **options))
    return Features(
        {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]},
        np.array([record.identity for record in records], dtype=np.int64),
        np.array([record.camera for record in records], dtype=np.int64),
    )


def extract_to_store(
    path: str | Path,
    model: FusionReID,
    records: Sequence[Record],
    cache: ImageCache,
    *,
    dtype: str = "float32",
    use_cameras: bool = True,
    precision: str = "float32",
    **options,
) -> FeatureStore:
    """Retrieval vectors written to disk as they come, for galleries larger than memory; goes on where it was cut off.

    The store can stand in place of an array in `evaluate_ranking`, which reads it block by block.

    Args:
        path: the store's folder (see `FeatureStore`).
        dtype: "float32", or "float16" at half the size.
        options: `batch_size` and `progress`, as of `extract`.
    """
    fingerprint = f"{checkpoint.fingerprint(model)}-{precision}{'' if use_cameras else '-no-cameras'}"
    store = FeatureStore.create(
        path, len(records), sum(model.widths.values()), fingerprint,
        identities=[record.identity for record in records], cameras=[record.camera for record in records],
        paths=[record.path for record in records], dtype=dtype,
    )  # fmt: skip
    stream = _stream(model, records, cache, start=store.done, use_cameras=use_cameras, precision=precision, **options)
    for features in stream:
        store.append(Features(features, store.identities, store.cameras).get("all"))
    return store


def rank(query: Features, gallery: Features, name: str = "all", **options) -> Ranking:
    """CMC, mAP and mINP of one feature, or of "all" side by side; `options` go to `evaluate_ranking`."""
    return evaluate_ranking(
        query.get(name),
        gallery.get(name),
        query.identities,
        gallery.identities,
        query.cameras,
        gallery.cameras,
        **options,
    )


def evaluate(
    model: FusionReID,
    dataset: Dataset,
    *,
    cache_directory: str | Path,
    features: Sequence[str] | None = None,
    use_cameras: bool = True,
    batch_size: int = 128,
    precision: str = "float32",
    progress: bool = False,
    **options,
) -> dict[str, Ranking]:
    """Ranks the query against the gallery by "all" features and by each one alone.

    Args:
        cache_directory: where the decoded images are kept (see `ImageCache`).
        features: which to rank by, "all" among them; default: "all" and each of the model's.
        options: for `evaluate_ranking`.
    """
    split = {
        name: extract(
            model,
            records,
            ImageCache(records, model.config.image_size, cache_directory),
            use_cameras=use_cameras,
            batch_size=batch_size,
            precision=precision,
            progress=progress,
        )
        for name, records in (("query", dataset.query), ("gallery", dataset.gallery))
    }
    return {
        name: rank(split["query"], split["gallery"], name, **{"device": device_of(model)} | options)
        for name in features or ("all", *model.widths)
    }


def summary(ranking: Ranking) -> dict[str, float]:
    """The numbers of a ranking that papers print, as fractions."""
    cmc = ranking.cmc
    return {
        "mAP": float(ranking.mAP),
        **{f"rank-{k}": float(cmc[min(k, len(cmc)) - 1]) for k in (1, 5, 10)},
        "mINP": float(ranking.mINP),
        "mAP_trapezoid": float(ranking.mAP_trapezoid),
    }


def cross_domain(
    model: FusionReID, datasets: dict[str, Dataset], *, cache_directory: str | Path, **options
) -> pd.DataFrame:
    """A model on several data sets, with and without its camera embedding: one row each.

    With the embedding, a camera of another data set takes the embedding of the training camera of the same number;
    without it, every camera is an unseen one. `options` go to `evaluate`.
    """
    rows = []
    for name, dataset in datasets.items():
        for use_cameras in (True, False) if model.num_cameras else (False,):
            ranking = evaluate(
                model, dataset, cache_directory=cache_directory, features=["all"], use_cameras=use_cameras, **options
            )["all"]
            rows.append({"dataset": name, "camera embedding": use_cameras} | summary(ranking))
    return pd.DataFrame(rows)


def embed(
    model: FusionReID, images_or_paths, cameras=None, *, batch_size: int = 64, precision: str = "float32"
) -> np.ndarray:
    """Retrieval vectors of a few images: (N, D) float32, L2-normalised.

    Args:
        images_or_paths: paths of image files, or a uint8 array or tensor (N, 3, H, W) of the model's image size.
        cameras: (N,) camera numbers of training, -1 for unseen ones; None: all unseen.

    Raises:
        ValueError: naming a file that cannot be decoded, or a shape that does not fit.
    """
    if isinstance(images_or_paths, (str, Path)):
        raise TypeError(
            f"images_or_paths: expected a list of paths or an array of images, found one path {images_or_paths!r}"
        )
    if not isinstance(images_or_paths, (np.ndarray, Tensor)):
        if others := {type(each).__name__ for each in images_or_paths if not isinstance(each, (str, Path))}:
            raise TypeError(f"images_or_paths: expected paths or one array of images, found a list of {others}")
        images_or_paths = load_images(images_or_paths, model.config.image_size)
    images = torch.as_tensor(images_or_paths)
    if images.dtype != torch.uint8:
        raise TypeError(
            f"images: expected uint8 pixels, found {images.dtype}; the model itself takes normalised floats"
        )
    if cameras is not None:
        cameras = torch.as_tensor(cameras, dtype=torch.int64)
        if len(cameras) != len(images):
            raise ValueError(f"cameras: expected {len(images)}, one for each image, found {len(cameras)}")
    was_training = model.training
    model.eval()
    try:
        batches = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
        chunks = [
            _forward(model, images[part], None if cameras is None else cameras[part], precision)() for part in batches
        ]
    finally:
        model.train(was_training)
    if not chunks:
        return np.zeros((0, sum(model.widths.values())), dtype=np.float32)
    features = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return Features(features, np.zeros(0), np.zeros(0)).get("all")
