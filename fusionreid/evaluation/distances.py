"""Distances from queries to a gallery (Sec. IV.A), some queries at a time, and the smallest.

`FeatureDistances` computes them from features. `RerankedDistances`, in `reranking`, re-ranks them.
`KnownDistances` holds a matrix. All three have `shape`, the numbers of queries and gallery images,
and `block(queries)`: the distances of some queries, an array of indices, to the whole gallery. A
block is a new (queries, G) float32 array, which the caller may change.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..devices import one_thread

ROWS = 64  # queries in a block, at most
BLOCK = 1 << 25  # distances in a block, at most: 128 MB for each thread
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
            torch.cuda.empty_cache()  # what a training has left there
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

    def block(self, queries: np.ndarray) -> np.ndarray:
        """(queries, G) float32."""
        rows = padded(self._floats(self.query[queries]), LEAST_ROWS)
        row_norms = padded(self.query_norms[queries], LEAST_ROWS)[:, None]
        block = np.empty((len(queries), self.shape[1]), np.float32)
        # One buffer for all products, as memory that is taken and given back piles up.
        buffer = torch.empty(len(rows), max(PRODUCT, LEAST_COLUMNS), device=self.device)
        for low in range(0, self.shape[1], PRODUCT):
            part = slice(low, low + PRODUCT)
            columns = padded(self._floats(self.gallery[part]), LEAST_COLUMNS)
            # |q - g|^2 = |q|^2 + |g|^2 - 2 q g
            distances = buffer[:, : len(columns)]
            torch.add(row_norms, padded(self.gallery_norms[part], LEAST_COLUMNS), out=distances)
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

    def block(self, queries: np.ndarray) -> np.ndarray:
        return self.matrix[queries]  # a copy, as the indices are an array


def each_query(distances, queries: np.ndarray, work: Callable[[int, np.ndarray], object]) -> list:
    """What `work(query, row)` returns for each of some queries, in order.

    `row` are the distances of the query to the gallery (G,), which `work` may change. Queries are
    taken block by block, so that memory does not grow with their number. Every thread has a block
    of its own: threads that share a product wait for each other, which is slow on a busy machine.
    Products are in full float32: TensorFloat-32, which a training may have switched on, keeps ten
    bits of a number.
    """
    size = max(1, min(ROWS, BLOCK // distances.shape[1]))

    def of_block(low: int) -> list:
        chosen = queries[low : low + size]
        rows = distances.block(chosen)
        return [work(query, row) for query, row in zip(chosen, rows, strict=True)]

    products = torch.backends.cuda.matmul
    precision = products.fp32_precision
    try:
        products.fp32_precision = "ieee"
        with one_thread("cpu") as threads, ThreadPoolExecutor(threads) as pool:
            blocks = pool.map(of_block, range(0, len(queries), size))
            return [result for block in blocks for result in block]
    finally:
        products.fp32_precision = precision


def smallest(row: np.ndarray, k: int) -> np.ndarray:
    """(k,) places of the k smallest values of a row, ascending, the first of equal ones first.

    They are fewer where the row is shorter.
    """
    k = min(k, len(row))
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
