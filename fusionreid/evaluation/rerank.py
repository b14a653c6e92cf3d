"""k-reciprocal encoding re-ranking (Zhong et al., CVPR 2017) on sparse neighbour lists, never an N x N matrix.

Each image is encoded by its k-reciprocal neighbours; two images are near (Jaccard) if their encodings overlap. An
encoding has some tens of non-zero weights, kept row by row as in a sparse matrix, so the memory grows with the images
and not with their square. The result is the published algorithm's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from . import neighbours as search
from .blocks import Buffer
from .distances import FeatureDistances, Features, Joined

CHUNK = 2048  # images encoded at a time, fewer where they have many neighbours
CHUNK_ENTRIES = 1 << 21  # neighbours of neighbours


@dataclass(frozen=True)
class Reranking:
    """Parameters of the re-ranking; the defaults are the published ones.

    Attributes:
        k1: neighbours that an image's encoding starts from.
        k2: neighbours whose encodings are averaged (local query expansion); 1 is none.
        weight: lambda, the share of the original distance in the final one, 0 to 1.
        neighbours: "exact", or "faiss" for faiss's flat index, which finds the same.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3
    neighbours: str = "exact"

    def __post_init__(self):
        for name in ("k1", "k2"):
            if not isinstance(getattr(self, name), (int, np.integer)) or getattr(self, name) < 1:
                raise ValueError(f"rerank: {name}={getattr(self, name)!r}: expected a whole number, 1 or more")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"rerank: weight={self.weight}: expected 0 to 1")
        if self.neighbours not in ("exact", "faiss"):
            raise ValueError(f"rerank: neighbours={self.neighbours!r} is not known; it is one of: 'exact', 'faiss'")

    @classmethod
    def of(cls, value) -> Reranking | None:
        """What `rerank=` may be: None or False, True or "k_reciprocal", a dict of parameters, or a Reranking."""
        if value is None or value is False:
            return None
        if value is True or (isinstance(value, str) and value == "k_reciprocal"):
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, dict):
            try:
                return cls(**value)
            except TypeError as error:
                raise ValueError(f"rerank={value}: its keys are k1, k2, weight and neighbours") from error
        raise ValueError(f"rerank={value!r}: expected None, True, 'k_reciprocal' or a dict of k1, k2 and weight")


class Sparse(NamedTuple):
    """Rows of a sparse matrix, one after another: row i is `column[start[i]:start[i + 1]]`, `value[...]`."""

    start: np.ndarray
    column: np.ndarray
    value: np.ndarray

    def entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the entries of `rows` stand, and how many each of them has."""
        count = self.start[rows + 1] - self.start[rows]
        begin = np.cumsum(count) - count
        return np.arange(count.sum()) + np.repeat(self.start[rows] - begin, count), count

    def transposed(self, columns: int) -> Sparse:
        row = np.repeat(np.arange(len(self.start) - 1, dtype=np.int32), np.diff(self.start))
        order = np.argsort(self.column, kind="stable")
        start = np.searchsorted(self.column[order], np.arange(columns + 1))
        return Sparse(start, row[order], self.value[order])


class RerankedDistances:
    """Re-ranked distances of queries to gallery, computed when asked for, a block at a time.

    Args:
        query, gallery: (Q, D) and (G, D), whatever `Features` takes; the encodings rest on all of them.
        reranking: its parameters.
        metric: of the original distances: "euclidean" (squared) or "cosine".
        device: where products are computed.
        threads: blocks in work at a time on the CPU while neighbours are searched; by default torch's number.
    """

    def __init__(
        self,
        query,
        gallery,
        reranking: Reranking,
        *,
        metric: str = "euclidean",
        device=None,
        threads: int | None = None,
    ):
        joined = Joined(Features(query, "query_features"), Features(gallery, "gallery_features"))
        self.distances = FeatureDistances(joined, joined, metric=metric, device=device)
        self.device, self.weight = self.distances.device, reranking.weight
        self.num_queries, self.num_gallery = len(joined.first), len(joined.second)
        k = max(reranking.k1 + 1, reranking.k2)
        if reranking.neighbours == "faiss":
            found = search.by_faiss(joined, k, metric)
        else:
            found = search.exact(self.distances, k, threads)
        self._farthest = np.maximum(found.farthest, np.finfo(np.float32).tiny)
        encoding = expand(encode(self.distances, found.index, self._farthest, reranking.k1), found.index, reranking.k2)
        split = encoding.start[self.num_queries]
        self._queries = encoding
        of_gallery = Sparse(encoding.start[self.num_queries :] - split, encoding.column[split:], encoding.value[split:])
        self._gallery = of_gallery.transposed(len(joined))

    def block(
        self, queries: slice | np.ndarray, gallery: slice | np.ndarray, buffer: Buffer | None = None
    ) -> torch.Tensor:
        """(rows, columns) float32 re-ranked distances, on `self.device`."""
        if isinstance(queries, slice):
            queries = np.arange(queries.start, queries.stop)
        if isinstance(gallery, slice):
            joined = slice(gallery.start + self.num_queries, gallery.stop + self.num_queries)
        else:
            joined = gallery + self.num_queries
        block = self.distances.block(queries, joined, buffer)
        share = torch.from_numpy(self.weight / self._farthest[queries]).to(block)
        block *= share[:, None]
        out = block if block.device.type == "cpu" else torch.empty(block.shape)
        overlap = np.zeros(self.num_gallery, np.float32)
        for row, query in zip(out.numpy(), queries, strict=True):
            touched = self._overlap(query, overlap)
            common = overlap[gallery]
            jaccard = 1 - common / (2 - common)
            jaccard *= 1 - self.weight
            np.add(row, jaccard, out=row) if out is block else np.copyto(row, jaccard)
            overlap[touched] = 0
        return block if out is block else block.add_(out.to(block.device))

    def bound(self) -> float:
        return 1.0 + 1e-4

    def _overlap(self, query: int, overlap: np.ndarray) -> np.ndarray:
        """Adds the sum of the lesser weights of the query and each gallery image; returns which images it touched."""
        mine = slice(self._queries.start[query], self._queries.start[query + 1])
        entries, count = self._gallery.entries(self._queries.column[mine])
        touched = self._gallery.column[entries]
        least = np.minimum(self._gallery.value[entries], np.repeat(self._queries.value[mine], count))
        np.add.at(overlap, touched, least)
        return touched


def k_reciprocal(
    query_features,
    gallery_features,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    *,
    metric: str = "euclidean",
    device=None,
    threads: int | None = None,
    neighbours: str = "exact",
) -> np.ndarray:
    """Re-ranked distances, (1 - weight) Jaccard + weight original (squared Euclidean, over the query's largest).

    The result is the whole (Q, G) matrix; `evaluate_ranking(..., rerank=...)` ranks by the same numbers without it.

    Args:
        query_features, gallery_features: (Q, D), (G, D); L2-normalise them first, as the published evaluation does.
        k1, k2, weight: see `Reranking`.

    Returns:
        (Q, G) float32

    Raises:
        ValueError: for features that do not fit together or are not finite, or parameters out of range.
    """
    source = RerankedDistances(
        query_features,
        gallery_features,
        Reranking(k1, k2, weight, neighbours),
        metric=metric,
        device=device,
        threads=threads,
    )
    result = np.empty((source.num_queries, source.num_gallery), np.float32)
    for low in range(0, source.num_queries, 256):
        rows = slice(low, min(low + 256, source.num_queries))
        result[rows] = source.block(rows, slice(0, source.num_gallery)).cpu().numpy()
    return result


def encode(distances: FeatureDistances, nearest: np.ndarray, farthest: np.ndarray, k1: int) -> Sparse:
    """Each image's k-reciprocal expanded neighbours, weighted by exp(-distance), in sum 1 (Eqs. 3 to 5 there)."""
    half = int(np.around(k1 / 2)) + 1
    nearest = nearest[:, : k1 + 1]
    near = nearest[:, :half]
    near = np.where(_mutual(near), near, -1)  # each image's reciprocal neighbours among its nearest half; -1: none
    size = (near >= 0).sum(axis=1)
    counts, columns, values = [], [], []
    mutual = _mutual(nearest)
    step = _step(nearest.shape[1] * half)
    for low in range(0, len(nearest), step):
        own = np.where(mutual[low : low + step], nearest[low : low + step], -1)  # (C, k1 + 1)
        theirs = np.where(own[:, :, None] >= 0, near[own], -1)  # (C, k1 + 1, half)
        shared = _contained(theirs.reshape(len(own), -1), own).reshape(theirs.shape).sum(axis=2)
        accepted = (own >= 0) & (shared > 2 / 3 * size[own])
        members = np.where(accepted[:, :, None], theirs, -1).reshape(len(own), -1)
        members = np.sort(np.hstack([own, members]), axis=1)
        keep = members >= 0
        keep[:, 1:] &= members[:, 1:] != members[:, :-1]
        row, count = np.nonzero(keep)[0], keep.sum(axis=1)
        column = members[keep]
        far = distances.pairs(row + low, column).clamp_(min=0).cpu().numpy() / farthest[row + low]
        value = np.exp(-far)
        counts.append(count)
        columns.append(column)
        values.append((value / np.bincount(row, value, minlength=len(own))[row]).astype(np.float32))
    return Sparse(np.r_[0, np.cumsum(np.concatenate(counts))], np.concatenate(columns), np.concatenate(values))


def expand(encoding: Sparse, nearest: np.ndarray, k2: int) -> Sparse:
    """Local query expansion: each image's encoding is the mean of those of its k2 nearest (Sec. 3.4 there)."""
    if k2 == 1:
        return encoding
    total, counts, columns, values = len(nearest), [], [], []
    nearest = nearest[:, :k2]
    for low in range(0, total, CHUNK):
        rows = nearest[low : low + CHUNK]
        entries, count = encoding.entries(rows.reshape(-1))
        row = np.repeat(np.repeat(np.arange(len(rows)), rows.shape[1]), count)
        key = row * np.int64(total) + encoding.column[entries]
        order = np.argsort(key, kind="stable")
        key = key[order]
        starts = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        counts.append(np.bincount(key[starts] // total, minlength=len(rows)))
        columns.append((key[starts] % total).astype(np.int32))
        values.append(np.add.reduceat(encoding.value[entries][order], starts) / np.float32(rows.shape[1]))
    return Sparse(np.r_[0, np.cumsum(np.concatenate(counts))], np.concatenate(columns), np.concatenate(values))


def _mutual(nearest: np.ndarray) -> np.ndarray:
    """(N, k) bool: whether an image is among the k nearest of its neighbour, too."""
    mutual = np.empty(nearest.shape, bool)
    step = _step(nearest.shape[1] ** 2)
    for low in range(0, len(nearest), step):
        rows = nearest[low : low + step]
        image = np.arange(low, low + len(rows))
        mutual[low : low + step] = (nearest[rows] == image[:, None, None]).any(axis=2)
    return mutual


def _step(entries: int) -> int:
    return max(1, min(CHUNK, CHUNK_ENTRIES // entries))


def _contained(values: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """(C, n) bool: whether each value, -1 aside, is in its row's set (C, m), a column of the set at a time."""
    found = np.zeros(values.shape, bool)
    for column in sets.T:
        found |= values == column[:, None]
    return found & (values >= 0)
