"""k-reciprocal encoding re-ranking (Zhong et al., CVPR 2017) on sparse matrices, never a dense N x N matrix.

Each image is encoded by its k-reciprocal neighbours among all images of query and gallery; two images are near
(Jaccard) if their encodings overlap. An encoding has some tens of weights that are not zero.
"""

from copy import copy
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..options import expect_fields
from .distances import FeatureDistances, blocks, in_threads, smallest


@dataclass(frozen=True)
class Reranking:
    """Parameters of the re-ranking; the defaults are the published ones."""

    k1: int = 20  # neighbours that an image's encoding starts from
    k2: int = 6  # neighbours whose encodings are averaged (local query expansion); 1 is none
    weight: float = 0.3  # lambda, the share of the original distance in the final one, 0 to 1

    def __post_init__(self):
        expect_fields(self, k1=(1,), k2=(1,), weight=(0, 1))

    @classmethod
    def of(cls, value) -> "Reranking | None":
        """What `rerank=` may be: None or False for none, True, a dict of parameters, or a Reranking."""
        if value is None or value is False or isinstance(value, cls):
            return value or None
        if value is True or (isinstance(value, dict) and set(value) <= {"k1", "k2", "weight"}):
            return cls(**({} if value is True else value))
        raise ValueError(f"rerank={value!r}: expected None, True or a dict of k1, k2 and weight")


class RerankedDistances:
    """Re-ranked distances of queries to gallery, computed a block at a time; arguments as of `FeatureDistances`."""

    def __init__(self, query, gallery, reranking: Reranking, *, device=None):
        self.original = FeatureDistances(query, gallery, device=device)
        self.shape, self.weight = self.original.shape, reranking.weight
        split = self.shape[0]
        everything = self.original.joined()
        nearest, farthest = neighbours(everything, max(reranking.k1 + 1, reranking.k2))
        encoding = encode(everything, nearest, farthest, reranking.k1)
        if (
            reranking.k2 > 1
        ):  # local query expansion: the mean of the encodings of the k2 nearest (Sec. 3.4 there)
            nearest = nearest[:, : reranking.k2]
            encoding = _matrix(nearest, np.float32) @ encoding / np.float32(nearest.shape[1])
        self.farthest, self._queries = farthest[:split], encoding[:split]
        self._gallery = encoding[
            split:
        ].T.tocsr()  # row i: the gallery images that have neighbour i

    def with_weight(self, weight: float) -> "RerankedDistances":
        """The same images and neighbours with another weight of the original distance: a copy that shares them."""
        other = copy(self)
        other.weight = weight
        return other

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray) -> np.ndarray:
        """(rows, columns) float32: the re-ranked distances of some queries to some of the gallery."""
        block = self.original.block(queries, gallery)
        block *= (self.weight / self.farthest[queries])[:, None]
        for row, query in zip(block, np.arange(self.shape[0])[queries], strict=True):
            overlap = self._overlap(query)[gallery]
            row += (1 - self.weight) * (1 - overlap / (2 - overlap))
        return block

    def _overlap(self, query: int) -> np.ndarray:
        """(G,) the sum over all neighbours of the lesser of the query's weight and the gallery image's."""
        mine = slice(*self._queries.indptr[query : query + 2])
        others = self._gallery[self._queries.indices[mine]]
        least = np.minimum(others.data, np.repeat(self._queries.data[mine], np.diff(others.indptr)))
        return np.bincount(others.indices, least, minlength=self.shape[1])


def k_reciprocal(
    query_features, gallery_features, k1: int = 20, k2: int = 6, weight: float = 0.3, *, device=None
) -> np.ndarray:
    """Re-ranked distances, (1 - weight) Jaccard + weight original (squared Euclidean, over the query's largest).

    Features (Q, D) and (G, D), L2-normalised first, as the published evaluation does, to (Q, G) float32, the whole
    matrix; `evaluate_ranking(..., rerank=...)` ranks by the same numbers without it. For k1, k2, weight: `Reranking`.
    """
    distances = RerankedDistances(
        query_features, gallery_features, Reranking(k1, k2, weight), device=device
    )
    queries, gallery = distances.shape
    result = np.empty((queries, gallery), np.float32)

    def fill(rows: slice) -> None:
        result[rows] = distances.block(rows, slice(0, gallery))

    in_threads(fill, queries)
    return result


def neighbours(distances: FeatureDistances, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of every image among all, itself included, and how far the farthest is: (N, k) and (N,)."""

    def search(rows: slice) -> tuple[np.ndarray, np.ndarray]:
        parts = list(blocks(distances, rows))
        return smallest(parts, k)[1], np.max([block.max(axis=1) for _, block in parts], axis=0)

    nearest, farthest = map(
        np.concatenate, zip(*in_threads(search, distances.shape[0]), strict=True)
    )
    return nearest.astype(np.int32), np.maximum(farthest, np.finfo(np.float32).tiny)


def encode(
    distances: FeatureDistances, nearest: np.ndarray, farthest: np.ndarray, k1: int
) -> csr_array:
    """(N, N) each image's weights of its k-reciprocal neighbours, exp(-distance), in sum 1 (Eqs. 3 to 5 there).

    The neighbours of an image are extended by the reciprocal neighbours of each of them in a list of half the
    length, if more than two thirds of these are neighbours of the image already.
    """
    own = _reciprocal(nearest[:, : k1 + 1])
    half = _reciprocal(nearest[:, : int(np.around(k1 / 2)) + 1])
    shared = own.multiply(
        own @ half.T
    ).tocsr()  # how many of the half list of j are neighbours of i, for neighbours j
    shared.data = (shared.data > 2 / 3 * np.diff(half.indptr)[shared.indices]).astype(np.int32)
    members = (own + shared @ half).tocoo()
    kept = members.data > 0
    row, column = members.row[kept], members.col[kept]
    weight = np.exp(-np.maximum(distances.pairs(row, column), 0) / farthest[row])
    weight /= np.bincount(row, weight, minlength=len(nearest))[row]
    return csr_array((weight.astype(np.float32), (row, column)), shape=members.shape)


def _reciprocal(nearest: np.ndarray) -> csr_array:
    """(N, N) 1 where two images are in the lists of each other."""
    listed = _matrix(nearest, np.int32)
    return listed.multiply(listed.T).tocsr()


def _matrix(nearest: np.ndarray, dtype: type) -> csr_array:
    """(N, N) 1 in row i for the images that are listed in `nearest[i]`."""
    count, k = nearest.shape
    starts = np.arange(0, count * k + 1, k)
    return csr_array((np.ones(count * k, dtype), nearest.reshape(-1), starts), shape=(count, count))
