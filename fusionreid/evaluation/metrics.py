"""Exact ranking in bounded memory: CMC, mAP and mINP by Market-1501's protocol (Sec. IV.A).

Only the ranks of the matching images matter. A block of queries meets a block of the gallery; the distances of the
matches are taken out, and for each of them the gallery images that come before it are counted. No more than a block
of distances exists, whatever the sizes. Ties are broken by gallery order, as a stable sort does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from .blocks import COLUMNS, Buffer, block_rows, in_threads, thread_count
from .counting import count_before, count_before_rows
from .distances import FeatureDistances, MatrixDistances
from .neighbours import smallest
from .protocol import Protocol, Related
from .rerank import RerankedDistances, Reranking
from .verification import Verification, VerificationCounts

PAIRS = 1 << 20  # of a query and an image of its identity, in one block of queries


@dataclass(frozen=True)
class Ranking:
    """How well the matches of the queries are ranked; all rates are fractions of 1.

    Attributes:
        mAP: mean over the valid queries of the mean precision at each match.
        cmc: (max_rank,) fraction of the valid queries with a match among the first 1, 2, ... images.
        mINP: mean of matches / rank of the last match (Ye et al., TPAMI 2022).
        average_precision: (num_valid,) that of each valid query, in the order of `queries`.
        num_valid: queries that have a match from another camera; the others are left out.
        mAP_trapezoid: mAP by the trapezoid rule of the original Market-1501 code.
        num_queries: all queries.
        queries: (num_valid,) indices of the valid queries.
        first_match: (num_valid,) rank of the first match, from 1.
        verification: the verification curve, where it was asked for.
    """

    mAP: float
    cmc: np.ndarray
    mINP: float
    average_precision: np.ndarray
    num_valid: int
    mAP_trapezoid: float
    num_queries: int
    queries: np.ndarray = field(repr=False)
    first_match: np.ndarray = field(repr=False)
    verification: Verification | None = None

    def rank(self, k: int) -> float:
        """Rank-k accuracy: the fraction of valid queries with a match among the first k images."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f"k={k}: expected 1 to max_rank={len(self.cmc)}")
        return float(self.cmc[k - 1])


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
    metric: str = "euclidean",
    device=None,
    verification: bool = False,
    threads: int | None = None,
    query_block: int | None = None,
    gallery_block: int | None = None,
) -> Ranking:
    """Ranks the gallery for each query and scores the ranks of its matches.

    Args:
        query_features, gallery_features: (Q, D) and (G, D) arrays, memory maps or tensors of any real type; ranked in
            float32 and as they are: L2-normalise them first (`fusionreid.embed` does) or use metric="cosine".
        query_ids, gallery_ids: (Q,), (G,) identities; a negative one in the gallery is a distractor.
        query_cameras, gallery_cameras: (Q,), (G,) cameras.
        max_rank: length of the CMC curve.
        rerank: None, or True for k-reciprocal re-ranking as published, or its parameters as a dict.
        metric: "euclidean" or "cosine".
        device: where distances are computed; by default where the features are.
        verification: also count pairs for the verification curve; takes several times as long.
        threads: blocks in work at a time on the CPU; by default torch's number of threads.
        query_block, gallery_block: rows and columns of a block; by default what keeps all blocks under 256 MB.

    Raises:
        ValueError: for features or labels that do not fit together, numbers that are not finite, or where no query
            has a match from another camera.
    """
    distances = _distances(query_features, gallery_features, rerank, metric, device, threads)
    return _evaluate(
        distances,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        max_rank=max_rank,
        verification=verification,
        threads=threads,
        query_block=query_block,
        gallery_block=gallery_block,
    )


def evaluate_distances(
    distances, query_ids, gallery_ids, query_cameras, gallery_cameras, *, max_rank: int = 50, threads: int | None = None
) -> Ranking:
    """`evaluate_ranking` for a (Q, G) matrix of distances that the caller has already computed."""
    return _evaluate(
        MatrixDistances(distances),
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        max_rank=max_rank,
        threads=threads,
    )


@dataclass(frozen=True)
class RankedList:
    """The top of the ranking of some queries, the query's own camera's images of its identity left out.

    Attributes:
        queries: (n,) indices of the queries.
        gallery: (n, top) indices of the gallery images, nearest first; -1 where fewer are left.
        distance: (n, top) float32; inf where fewer are left.
        match: (n, top) True where the image is of the query's identity.
    """

    queries: np.ndarray
    gallery: np.ndarray
    distance: np.ndarray
    match: np.ndarray


def nearest(
    query_features,
    gallery_features,
    query_ids,
    gallery_ids,
    query_cameras,
    gallery_cameras,
    *,
    queries=None,
    top: int = 10,
    rerank=None,
    metric: str = "euclidean",
    device=None,
    threads: int | None = None,
) -> RankedList:
    """The first images of the ranking that `evaluate_ranking` scores, by the same distances and the same rules.

    Args:
        queries: indices of the queries wanted; by default all. Re-ranking rests on all queries in any case.
        top: how many images of each.
        others: see `evaluate_ranking`.
    """
    if top < 1:
        raise ValueError(f"top={top}: expected 1 or more")
    distances = _distances(query_features, gallery_features, rerank, metric, device, threads)
    protocol = _protocol(distances, query_ids, gallery_ids, query_cameras, gallery_cameras)
    total = distances.num_gallery
    queries = np.arange(distances.num_queries) if queries is None else np.asarray(queries, np.int64).reshape(-1)
    outside = (queries < 0) | (queries >= distances.num_queries)
    if outside.any():
        raise ValueError(f"queries: expected indices from 0 to {distances.num_queries - 1}, found {queries[outside]}")
    columns, buffer = min(total, COLUMNS), Buffer()

    def first(chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        related = protocol.related(chosen)
        values, index = np.empty((len(chosen), 0), np.float32), np.empty((len(chosen), 0), np.int64)
        for low in range(0, total, columns):
            high = min(low + columns, total)
            block = distances.block(chosen, slice(low, high), buffer)
            here = (related.column >= low) & (related.column < high) & ~related.match
            block[_index(related.row[here], block), _index(related.column[here] - low, block)] = torch.inf
            more, place = smallest(block, min(top, high - low))
            values, index = np.hstack([values, more]), np.hstack([index, place.astype(np.int64) + low])
            order = np.argsort(values, axis=1, kind="stable")[:, :top]  # earlier blocks stand first: ties by order
            values, index = np.take_along_axis(values, order, 1), np.take_along_axis(index, order, 1)
        padding = ((0, 0), (0, top - values.shape[1]))
        values, index = np.pad(values, padding, constant_values=np.inf), np.pad(index, padding, constant_values=-1)
        index[np.isinf(values)] = -1
        return values, index, protocol.is_match(chosen, index)

    threads = thread_count(threads, distances.device)
    blocks = protocol.blocks(queries, block_rows(max(1, len(queries)), columns, threads), PAIRS)
    parts = list(in_threads(first, blocks, threads))
    if not parts:
        parts = [(np.empty((0, top), np.float32), np.empty((0, top), np.int64), np.empty((0, top), bool))]
    values, index, match = (np.concatenate(part) for part in zip(*parts, strict=True))
    return RankedList(queries, index, np.maximum(values, 0), match)


def _protocol(distances, *labels) -> Protocol:
    return Protocol(*labels, num_queries=distances.num_queries, num_gallery=distances.num_gallery)


def _distances(query_features, gallery_features, rerank, metric: str, device, threads: int | None):
    reranking = Reranking.of(rerank)
    if reranking is None:
        return FeatureDistances(query_features, gallery_features, metric=metric, device=device)
    return RerankedDistances(query_features, gallery_features, reranking, metric=metric, device=device, threads=threads)


def _evaluate(
    distances,
    query_ids,
    gallery_ids,
    query_cameras,
    gallery_cameras,
    *,
    max_rank: int,
    verification: bool = False,
    threads: int | None = None,
    query_block: int | None = None,
    gallery_block: int | None = None,
) -> Ranking:
    for name, value in (("max_rank", max_rank), ("query_block", query_block), ("gallery_block", gallery_block)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: expected 1 or more")
    protocol = _protocol(distances, query_ids, gallery_ids, query_cameras, gallery_cameras)
    protocol.require_valid()
    threads = thread_count(threads, distances.device)
    columns = min(distances.num_gallery, gallery_block or COLUMNS)
    rows = query_block or block_rows(len(protocol.valid), columns, threads)
    pairs = VerificationCounts(distances.bound()) if verification else None
    work = partial(_score, distances, protocol, columns=columns, pairs=pairs, buffer=Buffer())
    scores = np.concatenate(list(in_threads(work, protocol.blocks(protocol.valid, rows, PAIRS), threads)))
    precision, trapezoid, first, last = scores.T
    first = first.astype(np.int64)
    cmc = np.bincount(np.minimum(first, max_rank + 1), minlength=max_rank + 2)[1 : max_rank + 1].cumsum() / len(first)
    penalty = protocol.num_matches[protocol.valid] / last
    return Ranking(
        mAP=float(precision.mean()),
        cmc=cmc,
        mINP=float(penalty.mean()),
        average_precision=precision,
        num_valid=len(precision),
        mAP_trapezoid=float(trapezoid.mean()),
        num_queries=protocol.num_queries,
        queries=protocol.valid,
        first_match=first,
        verification=pairs.curve() if pairs else None,
    )


def _score(
    distances, protocol: Protocol, queries: np.ndarray, columns: int, pairs: VerificationCounts | None, buffer: Buffer
) -> np.ndarray:
    """(queries, 4): average precision, its trapezoid variant, rank of the first match, rank of the last."""
    row, position, distance, before = _matches(distances, protocol, queries, columns, pairs, buffer)
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    hits = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)])) + 1  # 1, 2, ... for each query
    rank = before + hits
    count = np.diff(np.r_[starts, len(row)])
    precision = hits / rank
    earlier = np.where(rank == 1, 1.0, (hits - 1) / np.maximum(rank - 1, 1))  # precision one rank before
    return np.stack(
        [
            np.add.reduceat(precision, starts) / count,
            np.add.reduceat((earlier + precision) / 2, starts) / count,
            rank[starts],
            np.maximum.reduceat(rank, starts),
        ],
        axis=1,
    )


def _matches(
    distances, protocol: Protocol, queries: np.ndarray, columns: int, pairs: VerificationCounts | None, buffer: Buffer
):
    """Each match of a block of queries, nearest first, and how many others than matches come before it.

    Returns:
        row: the query's row in the block, ascending; position: the gallery image; distance; before; all (matches,)
    """
    related = protocol.related(queries)
    whole = columns >= distances.num_gallery
    block = distances.block(queries, slice(0, distances.num_gallery), buffer) if whole else None
    values = _taken(block, related) if whole else _related_distances(distances, queries, related, columns)
    row, position, distance = related.row[related.match], related.column[related.match], values[related.match]
    order = np.lexsort((position, distance, row))
    row, position, distance = row[order], position[order], distance[order]
    before = np.zeros(len(row), np.int64)
    for low in range(0, distances.num_gallery, columns):
        high = min(low + columns, distances.num_gallery)
        if not whole:
            block = distances.block(queries, slice(low, high), buffer)
        here = (related.column >= low) & (related.column < high)
        block[_index(related.row[here], block), _index(related.column[here] - low, block)] = torch.inf
        _count(block, row, distance, position - low, before)
        if pairs is not None:
            pairs.add_negatives(block)
    if pairs is not None:
        pairs.add_positives(distance)
    return row, position, distance, before


def _count(
    block: torch.Tensor, row: np.ndarray, distance: np.ndarray, position: np.ndarray, before: np.ndarray
) -> None:
    """Adds to `before` how many of the block come before each match."""
    bounds = np.searchsorted(row, np.arange(len(block) + 1))
    if block.device.type == "cpu":
        mask = np.empty(block.shape[1], bool)
        for values, low, high in zip(block.numpy(), bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            before[low:high] += count_before(values, distance[low:high], position[low:high], mask)
        return
    place = np.arange(len(row)) - bounds[row]
    shape = (len(block), int(place.max()) + 1)
    limits, positions = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
    limits[row, place], positions[row, place] = distance, position
    counts = count_before_rows(
        block, torch.from_numpy(limits).to(block.device), torch.from_numpy(positions).to(block.device)
    )
    before += counts.cpu().numpy()[row, place]


def _related_distances(distances, queries: np.ndarray, related: Related, columns: int) -> np.ndarray:
    """(pairs,) distances to the images of the queries' own identities, where the gallery is in several blocks."""
    values = np.empty(len(related.row), np.float32)
    wanted, place = np.unique(related.column, return_inverse=True)
    for low in range(0, len(wanted), columns):
        here = (place >= low) & (place < low + columns)
        part = Related(related.row[here], place[here] - low, related.match[here])
        values[here] = _taken(distances.block(queries, wanted[low : low + columns]), part)
    return values


def _taken(block: torch.Tensor, related: Related) -> np.ndarray:
    return block[_index(related.row, block), _index(related.column, block)].cpu().numpy()


def _index(which: np.ndarray, block: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(which).to(block.device)
