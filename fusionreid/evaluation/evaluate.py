"""Features of query and gallery, and how well they rank: CMC, mAP, mINP of each feature and of all together."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..config import one_of
from ..data import Dataset, ImageCache, Record, load_images, normalise, prefetch
from ..devices import autocast
from ..files import read_json, write_json
from ..models.fusionreid import FusionReID
from ..processes import bars
from .metrics import Ranking, evaluate_ranking


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


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
        query, gallery = (normalised(np.hstack([features[name] for name in names])) for features in self[:2])
        return query, gallery, *self[2:]


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) divided by their length."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def labels(*splits: Sequence[Record]) -> list[np.ndarray]:
    """The identities of each split, then the cameras of each."""
    fields = ("identity", "camera")
    return [np.array([getattr(each, name) for each in records], np.int64) for name in fields for records in splits]


def retrieve(model: FusionReID, dataset: Dataset, *, cache_directory: str | Path, **options) -> Retrieval:
    """Every feature of a data set's query and gallery, in evaluation mode.

    Args:
        cache_directory: where the decoded images are kept (see `ImageCache`).
        options: `use_cameras` (True; False leaves the camera embedding out, as for cameras that training has not
            seen), `batch_size` (128), `precision` ("float32", "bf16" or "fp16"), `progress` (False).
    """
    splits, ends = (dataset.query, dataset.gallery), np.cumsum(list(model.widths.values()))[:-1]
    features = []
    for records in splits:
        cache = ImageCache(records, model.config.image_size, cache_directory)
        vectors = np.concatenate(list(_batches(model, records, cache, **options)))
        features.append(dict(zip(model.widths, np.split(vectors, ends, axis=1), strict=True)))
    return Retrieval(*features, *labels(*splits))


def extract_to_file(
    folder: str | Path, model: FusionReID, records: Sequence[Record], cache: ImageCache, **options
) -> np.memmap:
    """All features side by side, L2-normalised, on disk: for galleries larger than memory.

    An extraction that was cut off goes on where it stopped; another model, other images or options begin anew.

    Args:
        folder: gets `features.npy`, a (N, sum of widths) float32 array, and `features.json`.
        records: the images; `cache` holds them in the same order.
        options: as of `retrieve`.

    Returns:
        The array as a read-only memory map, which `evaluate_ranking` reads block by block.
    """
    array, state = Path(folder) / "features.npy", Path(folder) / "features.json"
    source, done, width = _fingerprint(model, records, options), 0, sum(model.widths.values())
    if state.is_file() and (found := read_json(state))["source"] == source:
        done = found["done"]
    else:
        array.parent.mkdir(parents=True, exist_ok=True)
        state.unlink(missing_ok=True)
        np.lib.format.open_memmap(array, "w+", np.float32, (len(records), width))
    with open(array, "r+b") as file:  # on a full disk an OSError, where writing to a memory map ends the process
        file.seek(np.load(array, mmap_mode="r").offset + 4 * width * done)
        for vectors in _batches(model, records, cache, start=done, **options):
            file.write(normalised(vectors))
            file.flush()
            os.fsync(file.fileno())
            done += len(vectors)
            write_json(state, {"source": source, "done": done})
    return np.load(array, mmap_mode="r")


def _fingerprint(model: FusionReID, records: Sequence[Record], options: dict) -> str:
    """Changes with the model's configuration and weights, the images' files and cameras, and what alters features."""
    files = [(str(record.path), Path(record.path).stat().st_mtime_ns, record.camera) for record in records]
    chosen = options.get("use_cameras", True), options.get("precision", "float32")
    digest = hashlib.sha256(json.dumps([asdict(model.config), files, chosen]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def _batches(
    model: FusionReID,
    records: Sequence[Record],
    cache: ImageCache,
    *,
    start: int = 0,
    use_cameras: bool = True,
    batch_size: int = 128,
    precision: str = "float32",
    progress: bool = False,
) -> Iterator[np.ndarray]:
    """All features side by side, (B, sum of widths), of one batch after another, from image `start` on."""
    cameras = torch.tensor([record.camera for record in records])
    cameras = torch.where(cameras < model.num_cameras, cameras, -1)
    starts = range(start, len(records), batch_size)
    batches = [range(first, min(first + batch_size, len(records))) for first in starts]
    bar = tqdm(batches, desc="embed", disable=not bars(progress), leave=False)
    with evaluating(model):
        for indices, images in prefetch(cache, bar, device_of(model)):
            yield _vectors(model, images, cameras[indices] if use_cameras else None, precision)


@torch.inference_mode()
def _vectors(model: FusionReID, images: Tensor, cameras: Tensor | None, precision: str) -> np.ndarray:
    """uint8 images (B, 3, H, W) to their features side by side, (B, sum of widths)."""
    device = device_of(model)
    with autocast(device, precision):
        vectors = model.embed(normalise(images.to(device)), cameras if cameras is None else cameras.to(device))
    return vectors.float().cpu().numpy()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of parameters; afterwards each module and parameter is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


def embed(
    model: FusionReID, images_or_paths, cameras=None, *, batch_size: int = 64, precision: str = "float32"
) -> np.ndarray:
    """Retrieval vectors of a few images: (N, D) float32, L2-normalised.

    Args:
        images_or_paths: paths of image files, or a uint8 array or tensor (N, 3, H, W) of the model's image size.
        cameras: (N,) camera numbers of training, -1 for unseen ones; None: all unseen.

    Raises:
        TypeError, ValueError: for images of another type or shape, or naming a file that cannot be decoded.
    """
    images = images_or_paths
    if not isinstance(images, (np.ndarray, Tensor)):
        if isinstance(images, (str, Path)) or not all(isinstance(each, (str, Path)) for each in images):
            raise TypeError(f"images_or_paths: expected a list of paths or one array of images, found {images!r:.60}")
        images = load_images(images, model.config.image_size)
    images = torch.as_tensor(images)
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected uint8 pixels, found {images.dtype}; `model.embed` takes normalised floats")
    if cameras is not None:
        cameras = torch.as_tensor(cameras, dtype=torch.int64)
        if len(cameras) != len(images):
            raise ValueError(f"cameras: expected {len(images)}, one for each image, found {len(cameras)}")
    vectors = np.zeros((len(images), sum(model.widths.values())), np.float32)
    with evaluating(model):
        for part in (slice(low, low + batch_size) for low in range(0, len(images), batch_size)):
            vectors[part] = _vectors(model, images[part], None if cameras is None else cameras[part], precision)
    return normalised(vectors)


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
    """Ranks the query against the gallery by "all" features and by each one alone.

    Args:
        features: which to rank by, "all" among them; default: "all" and each of the model's.
        rerank: as of `evaluate_ranking`.
        cache_directory, options: as of `retrieve`.
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
            ranking = evaluate(model, dataset, features=["all"], use_cameras=use_cameras, **options)["all"]
            rows.append({"dataset": name, "camera embedding": use_cameras} | ranking.summary())
    return pd.DataFrame(rows)
