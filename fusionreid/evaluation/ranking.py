"""Exact ranking in bounded memory: CMC, mAP and mINP by Market-1501's protocol (Sec. IV.A).

For each query the gallery is ranked by distance. The scores need only the ranks of the query's
matches, and the rank of a match is one more than the number of images before it. So no gallery is
sorted: the images before each match are counted. Some queries are ranked at a time, and no matrix
of all distances exists.

An image is before a match if it is nearer to the query. Of images that are equally far, the one
that stands first in the gallery comes first, as in a stable sort.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..data import Record
from ..options import expect
from .distances import FeatureDistances, each_query, smallest
from .reranking import RerankedDistances, Reranking


class Labels(NamedTuple):
    """Who is on the images of a split, and which cameras took them."""

    ids: np.ndarray  # (N,) int64 identities; a negative one is a distractor
    cameras: np.ndarray  # (N,) int64; a negative one is not known

    @classmethod
    def of(cls, records: Sequence[Record]) -> "Labels":
        ids = np.array([record.identity for record in records], np.int64)
        cameras = np.array([record.camera for record in records], np.int64)
        return cls(ids, cameras)


@dataclass(frozen=True)
class Ranking:
    """How well the matches of the queries are ranked; all rates are fractions of 1.

    A query without a match from another camera is not valid: it is not scored.
    """

    mAP: float  # mean of `average_precision`
    cmc: np.ndarray  # (max_rank,) valid queries with a match among the first 1, 2, ... images
    mINP: float  # mean of matches / rank of the last match (Ye et al., TPAMI 2022)
    average_precision: np.ndarray  # (num_valid,) mean of the precision at each match
    num_valid: int
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
    """The first images of the rankings of n queries, junk left out."""

    gallery: np.ndarray  # (n, top) gallery images, nearest first; -1 where no more are left
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
        query_features, gallery_features: (Q, D) and (G, D) arrays, memory maps or tensors of any
            real type. They are ranked in float32 and as they are: L2-normalise them first, as
            `fusionreid.embed` does.
        query_ids, gallery_ids: (Q,) and (G,) whole numbers; a negative one is a distractor.
        query_cameras, gallery_cameras: (Q,) and (G,) whole numbers, of which a negative one is not
            known; or None for both: then images of the query's own camera are not left out.
        max_rank: length of the CMC curve.
        rerank: None, or True for k-reciprocal re-ranking as published, or its parameters as a dict.
        device: where distances are computed; by default where the features are.

    Raises ValueError for features or labels that do not fit together, for numbers that are not
    finite, or where no query has a match from another camera.
    """
    distances = distances_between(query_features, gallery_features, rerank, device)
    queries, images = distances.shape
    if query_cameras is None and gallery_cameras is None:
        query_cameras = [-1] * queries
        gallery_cameras = [-1] * images
    elif query_cameras is None or gallery_cameras is None:
        raise ValueError(
            "query_cameras, gallery_cameras: expected numbers for both, or None for both (no "
            "camera rule), found None for one of them"
        )
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
    """The distances of features, re-ranked if asked for; arguments as of `evaluate_ranking`."""
    reranking = Reranking.of(rerank)
    if reranking is None:
        return FeatureDistances(query_features, gallery_features, device=device)
    return RerankedDistances(query_features, gallery_features, reranking, device=device)


def rank_by(distances, query: Labels, gallery: Labels, max_rank: int = 50) -> Ranking:
    """What `evaluate_ranking` does, by any of the distances of `distances` and `reranking`."""
    max_rank = expect("max_rank", max_rank, int, 1)
    valid = valid_queries(query, gallery)

    def ranks_of(i: int, row: np.ndarray) -> np.ndarray:
        matches, junk = matches_and_junk(query, gallery, i)
        row[junk] = np.inf  # behind every match
        return np.sort([rank_in(row, match) for match in matches])

    ranks_of_queries = each_query(distances, valid, ranks_of)
    first_match = np.array([ranks[0] for ranks in ranks_of_queries])
    average_precision = np.array([precision_at(ranks).mean() for ranks in ranks_of_queries])
    trapezoid = np.array([trapezoid_precision(ranks) for ranks in ranks_of_queries])
    inverse_penalty = np.array([len(ranks) / ranks[-1] for ranks in ranks_of_queries])
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


def nearest_by(distances, query: Labels, gallery: Labels, top: int = 10) -> RankedList:
    """The first `top` images of the rankings that `rank_by` scores, for all queries."""
    top = expect("top", top, int, 1)
    images = np.full((len(query.ids), top), -1)

    def fill(i: int, row: np.ndarray) -> None:
        _, junk = matches_and_junk(query, gallery, i)
        row[junk] = np.inf
        places = smallest(row, top)
        images[i, : len(places)] = np.where(np.isinf(row[places]), -1, places)

    each_query(distances, np.arange(len(images)), fill)
    ids = query.ids[:, None]
    match = (images >= 0) & (ids >= 0) & (gallery.ids[images] == ids)
    return RankedList(images, match)


def matches_and_junk(query: Labels, gallery: Labels, i: int) -> tuple[np.ndarray, np.ndarray]:
    """The gallery images of the identity of query `i`: (matches,) and (junk,), ascending.

    A match was taken by another camera than the query. An image by the query's own camera is junk:
    it may be the next frame, so finding it proves nothing, and the ranking leaves it out. Where the
    query's camera is not known there is no junk. A distractor matches nobody.
    """
    identity = query.ids[i]
    if identity < 0:
        nobody = np.empty(0, np.int64)
        return nobody, nobody
    images = np.flatnonzero(gallery.ids == identity)
    is_junk = same_camera(query.cameras[i], gallery.cameras[images])
    return images[~is_junk], images[is_junk]


def same_camera(camera: int, cameras: np.ndarray) -> np.ndarray:
    """(N,) bool, whether images are by a camera; none are where it is not known."""
    return (camera >= 0) & (cameras == camera)


def valid_queries(query: Labels, gallery: Labels) -> np.ndarray:
    """(num_valid,) the queries that have a match.

    Raises ValueError, saying why, where no query has one.
    """
    queries = range(len(query.ids))
    valid = np.flatnonzero([len(matches_and_junk(query, gallery, i)[0]) for i in queries])
    if len(valid):
        return valid
    in_gallery = np.isin(query.ids, gallery.ids[gallery.ids >= 0]).sum()
    if in_gallery:
        hint = "are the camera numbers right?"
    else:
        hint = "do query and gallery come from the same split?"
    raise ValueError(
        f"expected queries with a match in the gallery, found none: {in_gallery} of "
        f"{len(queries)} have images of their identity there, all from the query's own camera, "
        f"which the protocol leaves out; {hint}"
    )


def rank_in(row: np.ndarray, image: int) -> int:
    """The rank of a gallery image, from 1, by the distances of a query to the gallery (G,)."""
    # Images nearer than this one, and equally far ones that stand before it.
    before = np.count_nonzero(row[:image] <= row[image])
    return 1 + before + np.count_nonzero(row[image:] < row[image])


def precision_at(ranks: np.ndarray) -> np.ndarray:
    """The precision at each match: the share of matches among the images up to it.

    `ranks` (n,) are those of the matches, ascending.
    """
    return np.arange(1, len(ranks) + 1) / ranks


def trapezoid_precision(ranks: np.ndarray) -> float:
    """Average precision by the trapezoid rule.

    It takes, at each match, the mean of the precision there and of that one rank before. Before
    rank 1 the precision is 1.
    """
    matches_before = np.arange(len(ranks))
    before = np.where(ranks == 1, 1.0, matches_before / np.maximum(ranks - 1, 1))
    return (before + precision_at(ranks)).mean() / 2


def whole_numbers(values, name: str, length: int) -> np.ndarray:
    """Labels (length,) as int64. Raises ValueError, naming the argument, for anything else."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
    values = np.asarray(values)
    fits = values.shape == (length,) and values.dtype.kind in "iubf"
    if not fits or not np.array_equal(np.nan_to_num(values).astype(np.int64), values):
        raise ValueError(
            f"{name}: expected {length} whole numbers, one for each image, without NaN and "
            f"fractions, found {values.dtype} of shape {values.shape}"
        )
    return values.astype(np.int64)
