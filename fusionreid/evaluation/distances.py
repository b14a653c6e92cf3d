"""Distances between queries and gallery (Sec. IV.A), a block at a time, and the smallest of them.

`FeatureDistances` computes them from features. `RerankedDistances`, in `reranking`, re-ranks them.
`KnownDistances` holds a matrix. All three have `shape`, the numbers of queries and gallery images,
and `block(queries, gallery)`: the distances of some queries to some gallery images, each given as a
slice or as an array of indices. A block is a new (rows, columns) float32 array, which the caller
may change.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import one_thread

ROWS = 64  # queries in a block
COLUMNS = 1 << 16  # gallery images in a block
PRODUCT = 4096  # gallery images in one matrix product
# A matrix product chooses its kernel by its shape, and the kernels for small shapes add up in
# another order. Products of at least this shape give a pair the same bits in every block: equal
# features then have equal distances, a tie.
LEAST_ROWS = 64
LEAST_COLUMNS = 512


class FeatureDistances:
    """Squared Euclidean distances between features, in float32.

    Features are (Q, D) and (G, D) arrays, memory maps, tensors or lists of real, finite numbers,
    else a ValueError. `device` is where products are computed; by default where the features are.
    Features that fit in half of a GPU's free memory are moved there once; others are moved a part
    at a time.
    """

    def __init__(self, query, gallery, *, device=None):
        query = real_numbers(query, "query_features")
        gallery = real_numbers(gallery, "gallery_features")
        if query.shape[1] != gallery.shape[1]:
            widths = f"{query.shape[1]} and {gallery.shape[1]}"
            raise ValueError(
                f"query_features, gallery_features: expected one width, found {widths}"
            )
        if device is None:
            device = next((x.device for x in (query, gallery) if isinstance(x, Tensor)), "cpu")
        self.device = torch.device(device)
        self.shape = len(query), len(gallery)
        self.query, self.query_norms = self._prepare(query, "query_features")
        self.gallery, self.gallery_norms = self._prepare(gallery, "gallery_features")

    def _prepare(self, features, name: str) -> tuple[np.ndarray | Tensor, Tensor]:
        """The features (N, D), on the GPU if they fit there, and their squared norms (N,)."""
        count, width = features.shape
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if 4 * count * width < free / 2:
                features = as_rows(features, slice(None), self.device)
        norms = torch.empty(count, device=self.device)
        for low in range(0, count, PRODUCT):
            rows = as_rows(features, slice(low, low + PRODUCT), self.device)
            norms[low : low + PRODUCT] = torch.linalg.vecdot(rows, rows)
        bad = (~norms.isfinite()).nonzero()
        if len(bad):
            raise ValueError(
                f"{name}, row {int(bad[0])}: expected finite numbers whose squares float32 can "
                f"hold, found others here and in {len(bad) - 1} more rows"
            )
        return features, norms

    def joined(self) -> "FeatureDistances":
        """The distances of all images, queries first, to all. Holds the features once more."""
        query = as_rows(self.query, slice(None), self.device)
        gallery = as_rows(self.gallery, slice(None), self.device)
        images = torch.cat([query, gallery])
        return FeatureDistances(images, images)

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        """(rows, columns) float32."""
        row_norms = self.query_norms[queries]
        columns = len(self.gallery_norms[gallery])
        block = np.empty((len(row_norms), columns), np.float32)
        rows = padded(as_rows(self.query, queries, self.device), LEAST_ROWS)
        row_norms = padded(row_norms, LEAST_ROWS)
        # One buffer for all products, as memory that is taken and given back piles up.
        buffer = torch.empty(len(rows), max(PRODUCT, LEAST_COLUMNS), device=self.device)
        for low in range(0, columns, PRODUCT):
            part = section(gallery, low, low + PRODUCT)
            images = padded(as_rows(self.gallery, part, self.device), LEAST_COLUMNS)
            norms = padded(self.gallery_norms[part], LEAST_COLUMNS)
            # |q - g|^2 = |q|^2 + |g|^2 - 2 q g
            distances = buffer[:, : len(images)]
            torch.add(row_norms[:, None], norms, out=distances)
            distances.addmm_(rows, images.T, alpha=-2)
            target = block[:, low : low + PRODUCT]
            target[:] = distances[: target.shape[0], : target.shape[1]].cpu().numpy()
        return block

    def pairs(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """(pairs,) float32 distances of query i to gallery image i.

        The last bits are not always those of `block`.
        """
        distances = np.empty(len(queries), np.float32)
        for low in range(0, len(queries), PRODUCT):
            some = slice(low, low + PRODUCT)
            rows = as_rows(self.query, queries[some], self.device)
            images = as_rows(self.gallery, gallery[some], self.device)
            norms = self.query_norms[queries[some]] + self.gallery_norms[gallery[some]]
            distances[some] = (norms - 2 * torch.linalg.vecdot(rows, images)).cpu().numpy()
        return distances


class KnownDistances:
    """Distances from a matrix (Q, G)."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self.shape = matrix.shape

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        return self.matrix[queries][:, gallery].copy()


def in_threads(work: Callable[[slice], object], count: int) -> list:
    """What `work` returns for each block of `count` queries, in order.

    Every thread has a block of its own: threads that share a product wait for each other, which is
    slow on a busy machine. Products are in full float32: TensorFloat-32, which a training may have
    switched on, keeps ten bits of a number.
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
    """The distances of some queries to the whole gallery: (first column, block), block by block.

    `hidden` are gallery images, an array for each query, whose distance is set to infinity.
    """
    count = distances.shape[1]
    for low in range(0, count, COLUMNS):
        high = min(low + COLUMNS, count)
        block = distances.block(queries, slice(low, high))
        for row, images in zip(block, hidden, strict=False):
            inside = images[(images >= low) & (images < high)]
            row[inside - low] = np.inf
        yield low, block


def smallest(blocks: Iterable[tuple[int, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest distances of each row of what the function `blocks` gives.

    Returns values (rows, k) float32, ascending, and columns (rows, k) int64; fewer than k where the
    gallery is smaller. Of equal distances the one that stands first in the gallery comes first.
    """
    values = []
    columns = []
    for low, block in blocks:
        places = np.stack([smallest_of_row(row, min(k, len(row))) for row in block])
        values.append(np.take_along_axis(block, places, axis=1))
        columns.append(low + places)
    values = np.hstack(values)
    columns = np.hstack(columns)
    # The blocks are in gallery order and the sort is stable, so ties keep that order.
    order = np.argsort(values, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(columns, order, axis=1)


def smallest_of_row(row: np.ndarray, k: int) -> np.ndarray:
    """(k,) places of the k smallest values of a row, ascending, the first of equal ones first."""
    kth = np.partition(row, k - 1)[k - 1]
    near = np.flatnonzero(row <= kth)  # more than k where several values equal the kth
    return near[np.argsort(row[near], kind="stable")[:k]]


def real_numbers(features, name: str) -> np.ndarray | Tensor:
    """Features (images, width). Raises ValueError, naming the argument, for anything else."""
    if isinstance(features, Tensor):
        features = features.detach()
        real = not features.is_complex()
    else:
        features = np.asanyarray(features)  # a memory map stays one
        real = features.dtype.kind in "fiub"
    if features.ndim != 2 or 0 in features.shape or not real:
        raise ValueError(
            f"{name}: expected real numbers of shape (images, width), at least one of both, "
            f"found {features.dtype} of shape {tuple(features.shape)}"
        )
    return features


def as_rows(features: np.ndarray | Tensor, which: slice | np.ndarray, device) -> Tensor:
    """Some rows of features as (rows, D) float32 on `device`; a copy only where it must be."""
    if isinstance(features, Tensor):
        return features[which].to(device, torch.float32)
    rows = np.ascontiguousarray(features[which], dtype=np.float32)
    if not rows.flags.writeable:  # of a memory map; torch warns of such arrays
        rows = rows.copy()
    return torch.from_numpy(rows).to(device)


def section(which: slice | np.ndarray, low: int, high: int) -> slice | np.ndarray:
    """Items `low` to `high` of a slice or of an array of indices."""
    if isinstance(which, slice):
        return slice(which.start + low, min(which.start + high, which.stop))
    return which[low:high]


def padded(values: Tensor, least: int) -> Tensor:
    """Values (n, ...) with rows of zeros below, so that there are at least `least` rows."""
    missing = max(0, least - len(values))
    if not missing:
        return values
    # F.pad takes the last axis first, and two numbers an axis: zeros before and after it.
    return F.pad(values, (0, 0) * (values.ndim - 1) + (0, missing))
