"""Exact ranking in bounded memory: CMC, mAP and mINP by Market-1501's protocol (Sec. IV.A).

The rank of a match is one more than the number of images before it: the nearer ones, and of the equally far ones those
before it in the gallery, as in a stable sort. They are counted block by block: no matrix of all distances exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..options import expect
from .distances import FeatureDistances, blocks, in_threads, smallest
from .reranking import RerankedDistances, Reranking


class Protocol:
    """The rules of Market-1501.

    A match has the query's identity and another camera. Images of the query's identity and camera are junk: they are
    left out of its ranking. A negative identity in the gallery is a distractor and matches nobody. A query without
    a match is not valid: it is not scored. Labels are (Q,) or (G,) whole numbers, else a ValueError names them; `shape`
    is Q and G, the rows of features.
    """

    def __init__(
        self, query_ids, gallery_ids, query_cameras, gallery_cameras, *, shape: tuple[int, int]
    ):
        query_ids = whole_numbers(query_ids, "query_ids", shape[0])
        gallery_ids = whole_numbers(gallery_ids, "gallery_ids", shape[1])
        self._query_cameras = whole_numbers(query_cameras, "query_cameras", shape[0])
        self._gallery_cameras = whole_numbers(gallery_cameras, "gallery_cameras", shape[1])
        self._by_identity = np.argsort(gallery_ids, kind="stable")
        ordered = gallery_ids[self._by_identity]
        self._start = np.searchsorted(ordered, query_ids, "left")
        self._stop = np.where(
            query_ids < 0, self._start, np.searchsorted(ordered, query_ids, "right")
        )

    def related(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """The gallery images of a query's identity, (n,) ascending, and which of them are matches, the others junk."""
        images = self._by_identity[self._start[query] : self._stop[query]]
        return images, self._gallery_cameras[images] != self._query_cameras[query]

    def valid(self) -> np.ndarray:
        """(num_valid,) the queries that have a match. Raises ValueError, saying why, where no query has one."""
        queries = range(len(self._start))
        valid = np.flatnonzero([self.related(query)[1].any() for query in queries])
        if len(valid):
            return valid
        shared = int((self._stop > self._start).sum())
        why = (
            "are the camera numbers right?"
            if shared
            else "do query and gallery come from the same split?"
        )
        raise ValueError(
            f"expected queries with a match in the gallery, found none: {shared} of {len(queries)} have images of "
            f"their identity there, all from the query's own camera, which the protocol leaves out; {why}"
        )


def whole_numbers(values, name: str, length: int) -> np.ndarray:
    """Labels of `length` images as int64; a ValueError names them."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.shape != (length,):
        raise ValueError(
            f"{name}: expected {length} whole numbers, one for each image, found shape {values.shape}"
        )
    whole = values.dtype.kind in "iub"
    if not whole and (
        values.dtype.kind != "f"
        or not np.isfinite(values).all()
        or (values != np.floor(values)).any()
    ):
        raise ValueError(
            f"{name}: expected whole numbers, found {values.dtype} with others (NaN, fractions, text)"
        )
    return values.astype(np.int64)


@dataclass(frozen=True)
class Ranking:
    """How well the matches of the queries are ranked; all rates are fractions of 1."""

    mAP: float  # mean over the valid queries of the mean precision at each match
    cmc: (
        np.ndarray
    )  # (max_rank,) fraction of the valid queries with a match among the first 1, 2, ... images
    mINP: float  # mean of matches / rank of the last match (Ye et al., TPAMI 2022)
    average_precision: np.ndarray  # (num_valid,) of each valid query, in the order of `queries`
    num_valid: int  # queries that have a match from another camera; only these are scored
    mAP_trapezoid: float  # mAP by the trapezoid rule of the original Market-1501 code
    queries: np.ndarray = field(repr=False)  # (num_valid,) indices of the valid queries
    first_match: np.ndarray = field(repr=False)  # (num_valid,) rank of the first match, from 1

    def rank(self, k: int) -> float:
        """Rank-k accuracy: the fraction of valid queries with a match among the first k images."""
        return float(self.cmc[expect("k", k, int, 1, len(self.cmc)) - 1])

    def summary(self) -> dict[str, float]:
        """The numbers that papers print, as fractions."""
        ranks = {f"rank-{k}": self.rank(min(k, len(self.cmc))) for k in (1, 5, 10)}
        return {"mAP": self.mAP, **ranks, "mINP": self.mINP, "mAP_trapezoid": self.mAP_trapezoid}


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
    labels = query_ids, gallery_ids, query_cameras, gallery_cameras
    return rank_by(_distances(query_features, gallery_features, rerank, device), labels, max_rank)


class RankedList(NamedTuple):
    """The first images of the rankings of some queries, junk left out."""

    gallery: (
        np.ndarray
    )  # (n, top) indices of the gallery images, nearest first; -1 where fewer are left
    match: np.ndarray  # (n, top) True where the image is of the query's identity


def nearest(selection, *, queries=None, top: int = 10, rerank=None, device=None) -> RankedList:
    """The first `top` images of the rankings that `evaluate_ranking` scores, by default of all queries.

    `selection` are its six first arguments, as `Retrieval.select` gives them. Re-ranking uses all queries in any case.
    """
    top = expect("top", top, int, 1)
    distances, labels = _distances(*selection[:2], rerank, device), selection[2:]
    protocol, last = Protocol(*labels, shape=distances.shape), distances.shape[0] - 1
    queries = np.arange(last + 1) if queries is None else np.asarray(queries, np.int64).reshape(-1)
    if len(outside := queries[(queries < 0) | (queries > last)]):
        raise ValueError(f"queries: expected indices from 0 to {last}, found {outside}")
    gallery, match = np.full((len(queries), top), -1), np.zeros((len(queries), top), bool)

    def fill(rows: slice) -> None:
        related = [protocol.related(query) for query in queries[rows]]
        junk = [images[~other] for images, other in related]
        values, columns = smallest(blocks(distances, queries[rows], hidden=junk), top)
        gallery[rows, : values.shape[1]] = np.where(np.isinf(values), -1, columns)
        match[rows] = [
            np.isin(row, images) for row, (images, _) in zip(gallery[rows], related, strict=True)
        ]

    in_threads(fill, len(queries))
    return RankedList(gallery, match)


def _distances(query_features, gallery_features, rerank, device):
    if (reranking := Reranking.of(rerank)) is None:
        return FeatureDistances(query_features, gallery_features, device=device)
    return RerankedDistances(query_features, gallery_features, reranking, device=device)


def rank_by(distances, labels: Sequence, max_rank: int = 50) -> Ranking:
    """What `evaluate_ranking` does, by `distances` with `shape` and `block` and its last four arrays, the `labels`."""
    max_rank = expect("max_rank", max_rank, int, 1)
    protocol = Protocol(*labels, shape=distances.shape)
    valid = protocol.valid()
    ranks = sum(in_threads(lambda rows: _ranks(distances, protocol, valid[rows]), len(valid)), [])
    precision, trapezoid, penalty = np.array([_score(each) for each in ranks]).T
    first = np.array([each[0] for each in ranks])
    cmc = (first[:, None] <= np.arange(1, max_rank + 1)).mean(axis=0)
    mAP, mINP, mAP_trapezoid = (float(each.mean()) for each in (precision, penalty, trapezoid))
    return Ranking(
        mAP, cmc, mINP, precision, len(valid), mAP_trapezoid, queries=valid, first_match=first
    )


def _score(ranks: np.ndarray) -> tuple[float, float, float]:
    """Average precision, that of the trapezoid rule, and matches / rank of the last match, from ascending ranks."""
    hits = np.arange(1, len(ranks) + 1)
    precision = hits / ranks
    one_before = np.where(
        ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1)
    )  # precision one rank before
    return precision.mean(), (one_before + precision).mean() / 2, hits[-1] / ranks[-1]


def _ranks(distances, protocol: Protocol, queries: np.ndarray) -> list[np.ndarray]:
    """The ranks of each query's matches, from 1, ascending."""
    related = [protocol.related(query) for query in queries]
    wanted = np.unique(np.concatenate([images for images, _ in related]))
    matches = []
    for row, (images, match) in zip(distances.block(queries, wanted), related, strict=True):
        images = images[match]
        values = row[np.searchsorted(wanted, images)]
        order = np.argsort(
            values, kind="stable"
        )  # the images are in gallery order, and so are ties
        matches.append((values[order], images[order], np.zeros(len(images), np.int64)))
    # Images of the query's identity are not counted: junk has no rank, and the matches are in order already.
    for low, block in blocks(distances, queries, hidden=[images for images, _ in related]):
        for row, (values, images, before) in zip(block, matches, strict=True):
            places = np.clip(
                images - low, 0, len(row)
            )  # a match may stand before or after this block
            for k, (value, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
                # Ties by gallery order: an image as far as the match comes before it if it stands before it.
                before[k] += np.count_nonzero(row[:place] <= value) + np.count_nonzero(
                    row[place:] < value
                )
    return [before + np.arange(1, len(before) + 1) for _, _, before in matches]
