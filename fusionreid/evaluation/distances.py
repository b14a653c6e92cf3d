"""Distances between queries and gallery (Sec. IV.A), computed a block at a time, and the smallest of them.

`FeatureDistances` computes them from features, `RerankedDistances` of `rerank` re-ranks them, `KnownDistances` are a
matrix. All have `shape`, the numbers of queries and gallery images, and `block(queries, gallery)`: for slices or arrays
of indices a new (rows, columns) float32 array, which the caller may change.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import one_thread

ROWS = 64  # queries in a block
COLUMNS = 1 << 16  # gallery images in a block
PRODUCT = 4096  # gallery images in one matrix product
# A matrix product chooses its kernel by its shape, and the kernels for small shapes add up in another order. Products
# of at least this shape give a pair the same bits in every block: equal features then have equal distances, a tie.
LEAST_ROWS, LEAST_COLUMNS = 64, 512


class FeatureDistances:
    """Squared Euclidean distances between features, in float32.

    Features are (Q, D) and (G, D) arrays, memory maps, tensors or lists of real numbers, else a ValueError. `device` is
    where products are computed; by default where the features are. Features that fit in half of a GPU's free memory
    are moved there once; others are moved a part at a time.
    """

    def __init__(self, query, gallery, *, device=None):
        query, gallery = (
            real_numbers(query, "query_features"),
            real_numbers(gallery, "gallery_features"),
        )
        widths = query.shape[1], gallery.shape[1]
        if widths[0] != widths[1]:
            raise ValueError(
                f"query_features, gallery_features: expected one width, found {widths[0]} and {widths[1]}"
            )
        where = [features.device for features in (query, gallery) if isinstance(features, Tensor)]
        self.device = torch.device(device or (where or ["cpu"])[0])
        self.shape = len(query), len(gallery)
        self.query, self.query_norms = self._prepare(query, "query_features")
        self.gallery, self.gallery_norms = self._prepare(gallery, "gallery_features")

    def _prepare(self, features, name: str) -> tuple[np.ndarray | Tensor, Tensor]:
        """The features, on the device if they fit there, and their squared norms (N,)."""
        needed = 4 * features.shape[0] * features.shape[1]
        if self.device.type == "cuda" and needed < torch.cuda.mem_get_info(self.device)[0] / 2:
            features = as_rows(features, slice(None), self.device)
        norms = torch.empty(len(features), device=self.device)
        for low in range(0, len(features), PRODUCT):
            rows = as_rows(features, slice(low, low + PRODUCT), self.device)
            norms[low : low + PRODUCT] = torch.linalg.vecdot(rows, rows)
        if len(bad := (~torch.isfinite(norms)).nonzero()):
            found = f"found others here and in {len(bad) - 1} more rows"
            expected = f"row {int(bad[0])}: expected finite numbers whose squares float32 can hold"
            raise ValueError(f"{name}, {expected}, {found}")
        return features, norms

    def joined(self) -> "FeatureDistances":
        """The distances of all images, queries first, to all images. Holds the features once more."""
        images = torch.cat(
            [as_rows(features, slice(None), self.device) for features in (self.query, self.gallery)]
        )
        return FeatureDistances(images, images)

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        rows, row_norms = self._part(self.query, self.query_norms, queries)
        count, columns = len(rows), len(self.gallery_norms[gallery])
        rows, row_norms = _padded(rows, LEAST_ROWS), _padded(row_norms, LEAST_ROWS)
        out = _empty(len(rows), max(columns, LEAST_COLUMNS)).to(self.device)
        for low in range(0, columns, PRODUCT):
            low = max(0, min(low, columns - LEAST_COLUMNS))  # a short last part begins earlier
            part, norms = self._part(
                self.gallery, self.gallery_norms, _cut(gallery, low, low + PRODUCT)
            )
            part, norms = _padded(part, LEAST_COLUMNS), _padded(norms, LEAST_COLUMNS)
            target = out[:, low : low + len(part)]
            torch.add(row_norms[:, None], norms, out=target).addmm_(rows, part.T, alpha=-2)
        return out[:count, :columns].cpu().numpy()

    def pairs(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """(pairs,) float32: the distance of query i to gallery image j, the last bits not always those of `block`."""
        out, step = np.empty(len(queries), np.float32), max(1, (1 << 23) // self.query.shape[1])
        for pair in (slice(low, low + step) for low in range(0, len(queries), step)):
            rows, row_norms = self._part(self.query, self.query_norms, queries[pair])
            part, norms = self._part(self.gallery, self.gallery_norms, gallery[pair])
            out[pair] = (row_norms + norms - 2 * torch.linalg.vecdot(rows, part)).cpu().numpy()
        return out

    def _part(self, features, norms: Tensor, which: slice | np.ndarray) -> tuple[Tensor, Tensor]:
        return as_rows(features, which, self.device), norms[which]


class KnownDistances:
    """Distances from a matrix (Q, G)."""

    def __init__(self, matrix: np.ndarray):
        self.matrix, self.shape = matrix, matrix.shape

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        return self.matrix[queries][:, gallery].copy()


def in_threads(work: Callable[[slice], object], count: int) -> list:
    """What `work` returns for each block of `count` queries, in order; every thread has its own block.

    Threads that share a product wait for each other, which is slow on a busy machine. Products are in full float32:
    TensorFloat-32, which a training may have switched on, keeps ten bits of a feature.
    """
    rows = [slice(low, min(low + ROWS, count)) for low in range(0, count, ROWS)]
    tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        with one_thread("cpu") as threads, ThreadPoolExecutor(threads) as pool:
            return list(pool.map(work, rows))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32


def blocks(distances, queries: slice | np.ndarray, hidden=()) -> Iterator[tuple[int, np.ndarray]]:
    """The distances of some queries to the whole gallery: (first column, block) of one block after another.

    `hidden` are gallery images, an array for each query, whose distance is set to infinity.
    """
    for low in range(0, distances.shape[1], COLUMNS):
        high = min(low + COLUMNS, distances.shape[1])
        block = distances.block(queries, slice(low, high))
        for row, images in zip(block, hidden, strict=False):
            row[images[(images >= low) & (images < high)] - low] = np.inf
        yield low, block


def smallest(blocks: Iterable[tuple[int, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest distances of each row, ascending, ties by gallery order, from what the function `blocks` gives.

    Returns values (rows, k) float32 and columns (rows, k) int64; fewer than k where the gallery is smaller.
    """
    values = columns = None
    for low, block in blocks:
        place = np.stack([_smallest(row, min(k, len(row))) for row in block])
        found, place = np.take_along_axis(block, place, axis=1), place + low
        if (
            values is not None
        ):  # those of earlier blocks stand first, and the sort is stable: ties keep their order
            found, place = np.hstack([values, found]), np.hstack([columns, place])
        order = np.argsort(found, axis=1, kind="stable")[:, :k]
        values, columns = (
            np.take_along_axis(found, order, axis=1),
            np.take_along_axis(place, order, axis=1),
        )
    return values, columns


def _smallest(row: np.ndarray, k: int) -> np.ndarray:
    near = np.flatnonzero(row <= np.partition(row, k - 1)[k - 1])
    return near[np.argsort(row[near], kind="stable")[:k]]


def real_numbers(features, name: str) -> np.ndarray | Tensor:
    if not isinstance(features, (np.ndarray, Tensor)):
        features = np.asarray(features)
    real = (
        not features.is_complex() if isinstance(features, Tensor) else features.dtype.kind in "fiub"
    )
    if features.ndim != 2 or 0 in features.shape or not real:
        found = f"found {features.dtype} of shape {tuple(features.shape)}"
        raise ValueError(
            f"{name}: expected real numbers of shape (images, width), at least one of both, {found}"
        )
    return features.detach() if isinstance(features, Tensor) else features


def as_rows(
    features: np.ndarray | Tensor, which: slice | np.ndarray, device: torch.device
) -> Tensor:
    """(rows, D) float32 on `device`; a copy only where it must be."""
    if isinstance(features, Tensor):
        return features[which].to(device, torch.float32)
    rows = np.ascontiguousarray(features[which], dtype=np.float32)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(
        device
    )  # torch only takes writable ones


def _empty(rows: int, columns: int) -> Tensor:
    """(rows, columns) float32 in memory of its own, which goes back to the system at once; malloc would keep it."""
    return torch.frombuffer(mmap(-1, 4 * rows * columns), dtype=torch.float32).reshape(
        rows, columns
    )


def _cut(which: slice | np.ndarray, low: int, high: int) -> slice | np.ndarray:
    """Items `low` to `high` of a slice or of an array of indices."""
    if isinstance(which, slice):
        return slice(which.start + low, min(which.start + high, which.stop))
    return which[low:high]


def _padded(values: Tensor, least: int) -> Tensor:
    missing = max(0, least - len(values))
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, missing)) if missing else values
