"""The nearest neighbours of every image among all images, a block of distances at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from .blocks import COLUMNS, Buffer, block_rows, in_threads, thread_count
from .distances import FeatureDistances, Features


class Neighbours(NamedTuple):
    """Attributes:
    index: (N, k) int32, nearest first, ties by order; an image is its own first neighbour.
    farthest: (N,) float32, the largest distance from each image.
    """

    index: np.ndarray
    farthest: np.ndarray


def exact(distances: FeatureDistances, k: int, threads: int | None = None) -> Neighbours:
    """The k nearest by comparing all pairs of images; `distances` is of a set of features to itself."""
    count = distances.num_gallery
    k = min(k, count)
    columns = min(count, COLUMNS)
    buffer = Buffer()

    def search(rows: slice) -> Neighbours:
        farthest = np.full(rows.stop - rows.start, -np.inf, np.float32)
        values = np.empty((len(farthest), 0), np.float32)
        index = np.empty((len(farthest), 0), np.int32)
        for low in range(0, count, columns):
            block = distances.block(rows, slice(low, min(low + columns, count)), buffer)
            farthest = np.maximum(farthest, block.amax(dim=1).cpu().numpy())
            new_values, new_index = smallest(block, min(k, block.shape[1]))
            values, index = np.hstack([values, new_values]), np.hstack([index, new_index + np.int32(low)])
            order = np.argsort(values, axis=1, kind="stable")[:, :k]  # earlier blocks stand first: ties by order
            values, index = np.take_along_axis(values, order, 1), np.take_along_axis(index, order, 1)
        return Neighbours(index, farthest)

    threads = thread_count(threads, distances.device)
    step = block_rows(count, columns, threads)
    parts = list(in_threads(search, [slice(low, min(low + step, count)) for low in range(0, count, step)], threads))
    return Neighbours(np.concatenate([part.index for part in parts]), np.concatenate([part.farthest for part in parts]))


def smallest(block: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest of each row, ascending, ties by order: values (B, k) float32 and columns (B, k) int32."""
    if block.device.type != "cpu":
        return smallest_on_device(block, k)
    values, index = np.empty((len(block), k), np.float32), np.empty((len(block), k), np.int32)
    for row, line in enumerate(block.numpy()):
        values[row], index[row] = _smallest(line, k)
    return values, index


def smallest_on_device(block: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`smallest` by topk, which breaks ties anyhow: rows where the last place is tied are done again."""
    top = block.topk(k, dim=1, largest=False)
    place, order = top.indices.sort(dim=1)
    found = top.values.gather(1, order).sort(dim=1, stable=True)
    values = found.values.cpu().numpy()
    index = place.gather(1, found.indices).cpu().numpy().astype(np.int32)
    for row in ((block <= found.values[:, -1:]).sum(1) > k).nonzero().flatten().tolist():
        values[row], index[row] = _smallest(block[row].cpu().numpy(), k)
    return values, index


def _smallest(line: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    near = np.flatnonzero(line <= np.partition(line, k - 1)[k - 1])
    near = near[np.argsort(line[near], kind="stable")[:k]]
    return line[near], near


def by_faiss(features: Features, k: int, metric: str) -> Neighbours:
    """The k nearest by faiss's exact flat index. Holds the features once more, as faiss does.

    Raises:
        ImportError: saying how to install it.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "neighbours='faiss' needs faiss: pip install faiss-cpu; neighbours='exact' finds the same without it"
        ) from error
    rows = features.rows(slice(0, len(features)), torch.device("cpu"))
    if metric == "cosine":
        rows = torch.nn.functional.normalize(rows)
    k = min(k, len(rows))
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.numpy())
    nearest = index.search(rows.numpy(), k)[1].astype(np.int32)
    del index
    # The farthest of x maximises |y|^2 - 2 x.y, an inner product of longer vectors.
    norms = torch.linalg.vecdot(rows, rows)[:, None]
    index = faiss.IndexFlatIP(rows.shape[1] + 1)
    index.add(torch.cat([rows, norms], dim=1).numpy())
    most = index.search(torch.cat([-2 * rows, torch.ones_like(norms)], dim=1).numpy(), 1)[0][:, 0]
    return Neighbours(nearest, most + norms[:, 0].numpy())
