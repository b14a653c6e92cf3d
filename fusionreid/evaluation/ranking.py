"""Exact ranking in bounded memory: CMC, mAP and mINP by Market-1501's protocol (Sec. IV.A).

The gallery is ranked for each query by distance. Only the ranks of the query's matches are needed, and the rank of a
match is one more than the number of images before it. So nothing is sorted: the images before each match are counted,
block by block, and no matrix of all distances exists.

Images are before a match if they are nearer to the query. Of images that are equally far, those that stand first in
the gallery are before the others, as in a stable sort.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..data import Record
from ..options import expect
from .distances import FeatureDistances, blocks, in_threads, smallest
from .reranking import RerankedDistances, Reranking


class Labels(NamedTuple):
    """Who is on each image of a split, and which camera took it."""

    ids: np.ndarray  # (N,) int64; a negative one in the gallery is a distractor
    cameras: np.ndarray  # (N,) int64

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Labels":
        ids = np.array([record.identity for record in records], np.int64)
        cameras = np.array([record.camera for record in records], np.int64)
        return cls(ids, cameras)


class Protocol:
    """The rules of Market-1501: which gallery images are matches of a query, and which are left out.

    A match has the query's identity and another camera. An image of the query's identity and camera is junk: it is
    nearly the query itself, so it is left out of the query's ranking. A distractor matches nobody. A query without a
    match is not valid: it is not scored.
    """

    def __init__(self, query: Labels, gallery: Labels):
        self.query = query
        self.gallery = gallery
        # The gallery sorted by identity: each query's images stand in one run, from `_start` to `_stop`.
        self._by_identity = np.argsort(gallery.ids, kind="stable")
        sorted_ids = gallery.ids[self._by_identity]
        self._start = np.searchsorted(sorted_ids, query.ids, "left")
        self._stop = np.searchsorted(sorted_ids, query.ids, "right")
        self._stop = np.where(query.ids < 0, self._start, self._stop)

    def same_identity(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """The gallery images of a query's identity: its matches and its junk, (n,) and (m,) ascending indices."""
        images = self._by_identity[self._start[query] : self._stop[query]]
        is_match = self.gallery.cameras[images] != self.query.cameras[query]
        return images[is_match], images[~is_match]

    def valid_queries(self) -> np.ndarray:
        """(num_valid,) the queries that have a match. Raises ValueError, saying why, where no query has one."""
        queries = np.arange(len(self.query.ids))
        has_match = [len(self.same_identity(query)[0]) > 0 for query in queries]
        if any(has_match):
            return queries[has_match]
        with_identity = int((self._stop > self._start).sum())
        if with_identity:
            hint = "are the camera numbers right?"
        else:
            hint = "do query and gallery come from the same split?"
        raise ValueError(
            f"expected queries with a match in the gallery, found none: {with_identity} of {len(queries)} have images "
            f"of their identity there, all from the query's own camera, which the protocol leaves out; {hint}"
        )


def whole_numbers(values, name: str, length: int) -> np.ndarray:
    """Labels of `length` images as (length,) int64. Raises ValueError, naming the argument, for anything else."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.shape != (length,):
        raise ValueError(
            f"{name}: expected {length} whole numbers, one for each image, found shape {values.shape}"
        )
    whole = values.dtype.kind in "iub"
    if values.dtype.kind == "f":  # floats are fine if they are whole
        whole = np.isfinite(values).all() and (values == np.floor(values)).all()
    if not whole:
        raise ValueError(
            f"{name}: expected whole numbers, found {values.dtype} with others (NaN, fractions, text)"
        )
    return values.astype(np.int64)


@dataclass(frozen=True)
class Ranking:
    """How well the matches of the queries are ranked; all rates are fractions of 1."""

    mAP: float  # mean of `average_precision`
    cmc: np.ndarray  # (max_rank,) share of valid queries with a match among the first 1, 2, ...
    mINP: float  # mean of matches / rank of the last match (Ye et al., TPAMI 2022)
    average_precision: np.ndarray  # (num_valid,) mean of the precision at each match
    num_valid: int  # queries that have a match from another camera; only these are scored
    mAP_trapezoid: float  # mAP by the trapezoid rule of the original Market-1501 code
    queries: np.ndarray = field(repr=False)  # (num_valid,) indices of the valid queries
    first_match: np.ndarray = field(repr=False)  # (num_valid,) rank of the first match, from 1

    def rank(self, k: int) -> float:
        """Rank-k accuracy: the fraction of valid queries with a match among the first k images."""
        k = expect("k", k, int, 1, len(self.cmc))
        return float(self.cmc[k - 1])

    def summary(self) -> dict[str, float]:
        """The numbers that papers print, as fractions."""
        ranks = {f"rank-{k}": self.rank(min(k, len(self.cmc))) for k in (1, 5, 10)}
        return {"mAP": self.mAP, **ranks, "mINP": self.mINP, "mAP_trapezoid": self.mAP_trapezoid}


class RankedList(NamedTuple):
    """The first images of the rankings of some queries, junk left out."""

    gallery: np.ndarray  # (n, top) gallery images, nearest first; -1 where fewer are left
    match: np.ndarray  # (n, top) True where the image is of the query's identity


def evaluate_ranking(
    query_features,
    gallery_features,
    query_ids,
    gallery_ids,
    query_cameras,
    gallery_cameras,
    *,
    max_rank: int = 50,
    rerank=None,
    device=None,
) -> Ranking:
    """Ranks the gallery for each query and scores the ranks of its matches.

    Args:
        query_features, gallery_features: (Q, D) and (G, D) arrays, memory maps or tensors of any real type; ranked in
            float32 and as they are: L2-normalise them first, as `fusionreid.embed` does.
        query_ids, gallery_ids, query_cameras, gallery_cameras: (Q,), (G,); a negative identity is a distractor.
        max_rank: length of the CMC curve.
        rerank: None, or True for k-reciprocal re-ranking as published, or its parameters as a dict.
        device: where distances are computed; by default where the features are.

    Raises ValueError for features or labels that do not fit together, numbers that are not finite, or where no query
    has a match from another camera.
    """
    distances = distances_between(query_features, gallery_features, rerank, device)
    queries, images = distances.shape
    query = Labels(
        whole_numbers(query_ids, "query_ids", queries),
        whole_numbers(query_cameras, "query_cameras", queries),
    )
    gallery = Labels(
        whole_numbers(gallery_ids, "gallery_ids", images),
        whole_numbers(gallery_cameras, "gallery_cameras", images),
    )
    return rank_by(distances, query, gallery, max_rank)


def distances_between(query_features, gallery_features, rerank=None, device=None):
    """The distances that `rerank` asks for; arguments as of `evaluate_ranking`."""
    reranking = Reranking.of(rerank)
    if reranking is None:
        return FeatureDistances(query_features, gallery_features, device=device)
    return RerankedDistances(query_features, gallery_features, reranking, device=device)


def rank_by(distances, query: Labels, gallery: Labels, max_rank: int = 50) -> Ranking:
    """What `evaluate_ranking` does, by any of the distances of `distances.py` and `reranking.py`."""
    max_rank = expect("max_rank", max_rank, int, 1)
    protocol = Protocol(query, gallery)
    valid = protocol.valid_queries()

    def ranks_of(rows: slice) -> list[np.ndarray]:
        return match_ranks(distances, protocol, valid[rows])

    ranks = [row for block in in_threads(ranks_of, len(valid)) for row in block]
    average_precision = np.array([np.mean(precision_at(row)) for row in ranks])
    trapezoid = np.array([trapezoid_precision(row) for row in ranks])
    inverse_penalty = np.array([len(row) / row[-1] for row in ranks])
    first_match = np.array([row[0] for row in ranks])
    return Ranking(
        mAP=float(average_precision.mean()),
        cmc=(first_match[:, None] <= np.arange(1, max_rank + 1)).mean(axis=0),
        mINP=float(inverse_penalty.mean()),
        average_precision=average_precision,
        num_valid=len(valid),
        mAP_trapezoid=float(trapezoid.mean()),
        queries=valid,
        first_match=first_match,
    )


def precision_at(ranks: np.ndarray) -> np.ndarray:
    """The precision at each match: of the images up to it, the share that are matches. From ascending ranks (n,)."""
    matches = np.arange(1, len(ranks) + 1)
    return matches / ranks


def trapezoid_precision(ranks: np.ndarray) -> float:
    """Average precision by the trapezoid rule: at each match the mean of the precision there and one rank before."""
    matches_before = np.arange(len(ranks))
    # Before rank 1 there is no image; the original code takes 1 there.
    before = np.where(ranks == 1, 1.0, matches_before / np.maximum(ranks - 1, 1))
    return (before + precision_at(ranks)).mean() / 2


def match_ranks(distances, protocol: Protocol, queries: np.ndarray) -> list[np.ndarray]:
    """The ranks of each query's matches, ascending, from 1; an array for each query."""
    matches, hidden = [], []
    for query in queries:
        match, junk = protocol.same_identity(query)
        matches.append(match)
        # Junk has no rank. The other matches are counted below, by their own order.
        hidden.append(np.concatenate([match, junk]))
    match_distances = []
    columns = np.unique(np.concatenate(matches))
    for i, row in enumerate(distances.block(queries, columns)):
        values = row[np.searchsorted(columns, matches[i])]
        order = np.argsort(values, kind="stable")  # ties stay in gallery order
        matches[i] = matches[i][order]
        match_distances.append(values[order])
    before = [np.zeros(len(match), np.int64) for match in matches]
    for low, block in blocks(distances, queries, hidden=hidden):
        for i, row in enumerate(block):
            # Where a match stands among this block's columns: 0 or the end if it is in another block.
            places = np.clip(matches[i] - low, 0, len(row))
            for k, (value, place) in enumerate(zip(match_distances[i], places, strict=True)):
                # Images nearer than the match, and equally far ones that stand before it in the gallery.
                before[i][k] += np.count_nonzero(row[:place] <= value)
                before[i][k] += np.count_nonzero(row[place:] < value)
    return [others + np.arange(1, len(others) + 1) for others in before]


def nearest_by(
    distances, query: Labels, gallery: Labels, *, queries=None, top: int = 10
) -> RankedList:
    """The first `top` images of the rankings that `rank_by` scores, for some `queries` (n,), by default for all."""
    top = expect("top", top, int, 1)
    last = len(query.ids) - 1
    queries = np.arange(last + 1) if queries is None else np.asarray(queries, np.int64).reshape(-1)
    outside = queries[(queries < 0) | (queries > last)]
    if len(outside):
        raise ValueError(f"queries: expected indices from 0 to {last}, found {outside}")
    protocol = Protocol(query, gallery)
    images = np.full((len(queries), top), -1)

    def fill(rows: slice) -> None:
        junk = [protocol.same_identity(query)[1] for query in queries[rows]]
        values, columns = smallest(blocks(distances, queries[rows], hidden=junk), top)
        images[rows, : values.shape[1]] = np.where(np.isinf(values), -1, columns)

    in_threads(fill, len(queries))
    ids = query.ids[queries, None]
    return RankedList(images, (images >= 0) & (ids >= 0) & (gallery.ids[images] == ids))
