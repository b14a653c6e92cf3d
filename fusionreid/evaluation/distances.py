"""Distances between queries and gallery (Sec. IV.A), a block at a time, and the smallest of them.

`FeatureDistances` computes them from features. `RerankedDistances`, in `reranking`, re-ranks them.
`KnownDistances` holds a matrix. All three have `shape`, the numbers of queries and gallery images,
and `block(queries, gallery)`: the distances of some queries to some gallery images, each given as a
slice or as an array of indices. A block is a new (rows, columns) float32 array, which the caller
may change.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..devices import one_thread

ROWS = 64  # queries in a block
COLUMNS = 1 << 16  # gallery images in a block
PRODUCT = 4096  # gallery images in one matrix product
PAIRS = 512  # pairs of vectors whose products are held at once
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
        query = as_tensor(query, "query_features")
        gallery = as_tensor(gallery, "gallery_features")
        if query.shape[1] != gallery.shape[1]:
            raise ValueError(
                "query_features, gallery_features: expected one width, "
                f"found {query.shape[1]} and {gallery.shape[1]}"
            )
        self.device = torch.device(device or gallery.device)
        self.shape = len(query), len(gallery)
        self.query, self.query_norms = self._prepare(query, "query_features")
        self.gallery, self.gallery_norms = self._prepare(gallery, "gallery_features")

    def _prepare(self, features: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """The features (N, D), on the GPU if they fit there, and their squared norms (N,)."""
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if 4 * features.numel() < free / 2:
                features = self._floats(features)
        norms = torch.empty(len(features), device=self.device)
        for low in range(0, len(features), PAIRS):
            rows = self._floats(features[low : low + PAIRS])
            norms[low : low + PAIRS] = torch.linalg.vecdot(rows, rows)
        bad = (~norms.isfinite()).nonzero()
        if len(bad):
            raise ValueError(
                f"{name}, row {int(bad[0])}: expected finite numbers whose squares float32 can "
                f"hold, found others here and in {len(bad) - 1} more rows"
            )
        return features, norms

    def _floats(self, features: Tensor) -> Tensor:
        """Some of the features on the device, in float32; a copy only where it must be."""
        return features.to(self.device, torch.float32)

    def joined(self) -> "FeatureDistances":
        """The distances of all images, queries first, to all. Holds the features once more."""
        images = torch.cat([self._floats(self.query), self._floats(self.gallery)])
        return FeatureDistances(images, images)

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        """(rows, columns) float32."""
        query_norms = self.query_norms[queries]
        gallery_norms = self.gallery_norms[gallery]
        images = self.gallery[gallery]  # of a slice a view, which holds no memory
        block = np.empty((len(query_norms), len(gallery_norms)), np.float32)
        rows = padded(self._floats(self.query[queries]), LEAST_ROWS)
        row_norms = padded(query_norms, LEAST_ROWS)[:, None]
        # One buffer for all products, as memory that is taken and given back piles up.
        buffer = torch.empty(len(rows), max(PRODUCT, LEAST_COLUMNS), device=self.device)
        for low in range(0, len(images), PRODUCT):
            part = slice(low, low + PRODUCT)
            columns = padded(self._floats(images[part]), LEAST_COLUMNS)
            # |q - g|^2 = |q|^2 + |g|^2 - 2 q g
            distances = buffer[:, : len(columns)]
            torch.add(row_norms, padded(gallery_norms[part], LEAST_COLUMNS), out=distances)
            distances.addmm_(rows, columns.T, alpha=-2)
            target = block[:, part]
            target[:] = distances[: target.shape[0], : target.shape[1]].cpu().numpy()
        return block

    def pairs(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """(pairs,) float32 distances of query i to gallery image i.

        The last bits are not always those of `block`.
        """
        distances = np.empty(len(queries), np.float32)
        for low in range(0, len(queries), PAIRS):
            part = slice(low, low + PAIRS)
            query = queries[part]
            image = gallery[part]
            products = torch.linalg.vecdot(
                self._floats(self.query[query]), self._floats(self.gallery[image])
            )
            norms = self.query_norms[query] + self.gallery_norms[image]
            distances[part] = (norms - 2 * products).cpu().numpy()
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


def as_tensor(features, name: str) -> Tensor:
    """Features (images, width) of any real type as a tensor, without a copy where that is possible.

    Raises ValueError, naming the argument, for anything else.
    """
    if isinstance(features, Tensor):
        real = not features.is_complex()
    else:
        features = np.asarray(features)
        real = features.dtype.kind in "fiub"
    if features.ndim != 2 or 0 in features.shape or not real:
        raise ValueError(
            f"{name}: expected real numbers of shape (images, width), at least one of both, "
            f"found {features.dtype} of shape {tuple(features.shape)}"
        )
    if isinstance(features, Tensor):
        return features.detach().contiguous()
    features = np.ascontiguousarray(features, features.dtype.newbyteorder("="))
    with warnings.catch_warnings():  # of a memory map, which torch could not write into
        warnings.simplefilter("ignore")
        return torch.from_numpy(features)


def padded(values: Tensor, least: int) -> Tensor:
    """Values (n, ...) with rows of zeros below, so that there are at least `least` rows."""
    if len(values) >= least:
        return values
    return torch.cat([values, values.new_zeros(least - len(values), *values.shape[1:])])
