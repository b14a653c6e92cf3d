"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) on sparse matrices, never a dense N x N one.

Each image is encoded by its k-reciprocal neighbours among all N images of query and gallery: two
images are such neighbours if each is among the k nearest of the other. Two images are near in the
Jaccard distance if their encodings overlap. Of an encoding's N weights only some tens are not zero.
"""

import copy
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from ..options import expect_fields
from .distances import FeatureDistances, each_query, smallest


@dataclass(frozen=True)
class Reranking:
    """Parameters of the re-ranking; the defaults are the published ones."""

    k1: int = 20  # neighbours that an image's encoding starts from
    k2: int = 6  # neighbours whose encodings are averaged (local query expansion); 1 is none
    weight: float = 0.3  # lambda, the share of the original distance in the final one, 0 to 1

    def __post_init__(self):
        expect_fields(self, k1=(1,), k2=(1,), weight=(0, 1))

    @classmethod
    def of(cls, rerank) -> "Reranking | None":
        """What `rerank=` may be: None or False for none, True, or a dict of parameters."""
        if rerank is None or rerank is False:
            return None
        parameters = {} if rerank is True else rerank
        try:
            return cls(**parameters)
        except TypeError as error:  # no dict, or a name that is no parameter
            raise ValueError(
                f"rerank={rerank!r}: expected None, True or a dict of k1, k2 and weight"
            ) from error


class RerankedDistances:
    """Re-ranked distances of queries to gallery, computed a block at a time.

    The arguments are as of `FeatureDistances`.
    """

    def __init__(self, query, gallery, reranking: Reranking, *, device=None):
        self.original = FeatureDistances(query, gallery, device=device)
        self.shape = self.original.shape
        self.weight = reranking.weight
        everything = self.original.joined()
        nearest, farthest = neighbours(everything, max(reranking.k1 + 1, reranking.k2))
        encodings = encode(everything, nearest, farthest, reranking.k1)
        if reranking.k2 > 1:
            # Local query expansion: the mean of the encodings of the k2 nearest (Sec. 3.4 there).
            nearest = nearest[:, : reranking.k2]
            encodings = listed(nearest, np.float32) @ encodings / np.float32(nearest.shape[1])
        queries = self.shape[0]
        self.farthest = farthest[:queries]
        self._query_encodings = encodings[:queries]
        # Row i holds the weight of image i in the encoding of every gallery image.
        self._gallery_weights = encodings[queries:].T.tocsr()

    def with_weight(self, weight: float) -> "RerankedDistances":
        """The same with another share of the original distance; shares what was computed."""
        other = copy.copy(self)
        other.weight = weight
        return other

    def block(self, queries: np.ndarray) -> np.ndarray:
        """(queries, G) float32."""
        block = self.original.block(queries)
        block *= (self.weight / self.farthest[queries])[:, None]
        for row, query in zip(block, queries, strict=True):
            overlap = self._overlap(query)
            # Encodings sum to 1, so the sum of the greater weights is 2 - overlap.
            row += (1 - self.weight) * (1 - overlap / (2 - overlap))
        return block

    def _overlap(self, query: int) -> np.ndarray:
        """(G,) for each gallery image the sum of the lesser of its weights and the query's."""
        start, stop = self._query_encodings.indptr[query : query + 2]
        neighbours = self._query_encodings.indices[start:stop]
        weights = self._query_encodings.data[start:stop]
        others = self._gallery_weights[neighbours]
        lesser = np.minimum(others.data, np.repeat(weights, np.diff(others.indptr)))
        return np.bincount(others.indices, lesser, minlength=self.shape[1])


def k_reciprocal(
    query_features, gallery_features, k1: int = 20, k2: int = 6, weight: float = 0.3, *, device=None
) -> np.ndarray:
    """Re-ranked distances of all queries to the whole gallery, as a (Q, G) float32 matrix.

    They are (1 - weight) * Jaccard + weight * original, which is the squared Euclidean distance
    over the query's largest. Features are (Q, D) and (G, D), L2-normalised first, as the published
    evaluation does. For k1, k2 and weight see `Reranking`. `evaluate_ranking(..., rerank=...)`
    ranks by the same numbers without the matrix.
    """
    reranking = Reranking(k1, k2, weight)
    distances = RerankedDistances(query_features, gallery_features, reranking, device=device)
    matrix = np.empty(distances.shape, np.float32)

    def fill(query: int, row: np.ndarray) -> None:
        matrix[query] = row

    each_query(distances, np.arange(len(matrix)), fill)
    return matrix


def neighbours(distances: FeatureDistances, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each of N images among all, itself included, and the largest distance.

    Returns (N, k) int32 images, nearest first, and (N,) float32.
    """

    def search(_, row: np.ndarray) -> tuple[np.ndarray, np.float32]:
        return smallest(row, k).astype(np.int32), row.max()

    found = each_query(distances, np.arange(distances.shape[0]), search)
    nearest, farthest = zip(*found, strict=True)
    # Where all images are alike the largest distance is 0, by which nothing can be divided.
    return np.stack(nearest), np.maximum(farthest, np.finfo(np.float32).tiny)


def encode(
    distances: FeatureDistances, nearest: np.ndarray, farthest: np.ndarray, k1: int
) -> csr_array:
    """(N, N) each image's weights of its k-reciprocal neighbours, in sum 1 (Eqs. 3 to 5 there).

    The weight of a neighbour is exp(-distance / largest distance). The neighbours of an image are
    extended by those of each neighbour j in a list of half the length, if more than two thirds of
    these are neighbours of the image already.
    """
    near = reciprocal(nearest[:, : k1 + 1])
    half = reciprocal(nearest[:, : round(k1 / 2) + 1])
    # For each neighbour j of image i: how many of the half list of j are neighbours of i.
    shared = near.multiply(near @ half.T).tocsr()
    enough = shared.data > 2 / 3 * np.diff(half.indptr)[shared.indices]
    shared.data = enough.astype(np.int32)
    members = (near + shared @ half).tocoo()
    kept = members.data > 0
    row = members.row[kept]
    column = members.col[kept]
    weight = np.exp(-np.maximum(distances.pairs(row, column), 0) / farthest[row])
    weight /= np.bincount(row, weight, minlength=len(nearest))[row]
    return csr_array((weight.astype(np.float32), (row, column)), shape=members.shape)


def reciprocal(nearest: np.ndarray) -> csr_array:
    """(N, N) 1 where two images are in the lists of each other, from lists (N, k)."""
    lists = listed(nearest, np.int32)
    return lists.multiply(lists.T).tocsr()


def listed(nearest: np.ndarray, dtype: type) -> csr_array:
    """(N, N) 1 in row i for the images that are listed in `nearest[i]`, from lists (N, k)."""
    count, k = nearest.shape
    starts = np.arange(0, count * k + 1, k)
    return csr_array((np.ones(count * k, dtype), nearest.reshape(-1), starts), shape=(count, count))
