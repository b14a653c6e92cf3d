"""Which gallery images a query is scored on: the protocol of Market-1501 (Zheng et al., ICCV 2015)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Related(NamedTuple):
    """The gallery images of a block of queries' own identities, flat.

    Attributes:
        row: (pairs,) the query's row in the block, ascending.
        column: (pairs,) the gallery image.
        match: (pairs,) True where another camera took it, False where it is left out of the query's ranking.
    """

    row: np.ndarray
    column: np.ndarray
    match: np.ndarray


class Protocol:
    """Matches share the query's identity and not its camera; images that share both are left out of its ranking.

    A negative identity in the gallery is a distractor and matches nobody. Queries that no match remains for are not
    valid: they are counted and left out.

    Args:
        query_ids, gallery_ids, query_cameras, gallery_cameras: (Q,) and (G,) whole numbers.

    Raises:
        ValueError: for labels that are no whole numbers, of other lengths, or where no query has a match.
    """

    def __init__(self, query_ids, gallery_ids, query_cameras, gallery_cameras, *, num_queries: int, num_gallery: int):
        self.query_ids = _labels(query_ids, "query_ids", num_queries)
        self.query_cameras = _labels(query_cameras, "query_cameras", num_queries)
        self.gallery_ids = gallery_ids = _labels(gallery_ids, "gallery_ids", num_gallery)
        gallery_cameras = _labels(gallery_cameras, "gallery_cameras", num_gallery)
        self.num_queries, self.num_gallery = num_queries, num_gallery

        # The gallery ordered by identity, then camera: a query's identity is one range, its camera a range in it.
        self._order = np.lexsort((gallery_cameras, gallery_ids))
        identities, cameras = gallery_ids[self._order], gallery_cameras[self._order]
        self._start = np.searchsorted(identities, self.query_ids, "left")
        self._stop = np.searchsorted(identities, self.query_ids, "right")
        self._stop = np.where(self.query_ids < 0, self._start, self._stop)
        self._same_start, self._same_stop = self._camera_ranges(identities, cameras)
        self.num_matches = (self._stop - self._start) - (self._same_stop - self._same_start)
        self.valid = np.flatnonzero(self.num_matches > 0)

    def _camera_ranges(self, identities: np.ndarray, cameras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the ordered gallery holds the query's identity and camera, both."""
        known = np.unique(cameras)
        rank = np.minimum(np.searchsorted(known, self.query_cameras), len(known) - 1)
        found = (known[rank] == self.query_cameras) & (self._stop > self._start)
        group = np.r_[0, np.cumsum(identities[1:] != identities[:-1])]  # identities, numbered from 0
        key = group * len(known) + np.searchsorted(known, cameras)
        wanted = group[np.minimum(self._start, len(group) - 1)] * len(known) + rank
        start, stop = np.searchsorted(key, wanted, "left"), np.searchsorted(key, wanted, "right")
        return np.where(found, start, self._start), np.where(found, stop, self._start)

    def require_valid(self) -> None:
        """Raises a ValueError, saying why, where no query has a match."""
        if len(self.valid):
            return
        shared = int((self._stop > self._start).sum())
        if shared:
            why = (
                f"{shared} of them have images of their identity in the gallery, all from the query's own camera, "
                f"which the protocol leaves out. Are the camera numbers right?"
            )
        else:
            why = "none of their identities is in the gallery. Do the identities of both come from the same split?"
        raise ValueError(
            f"none of the {self.num_queries} queries has a match in the gallery of {self.num_gallery} images: {why}"
        )

    def related(self, queries: np.ndarray) -> Related:
        """The gallery images that share the identity of the given queries."""
        start, count = self._start[queries], (self._stop - self._start)[queries]
        row = np.repeat(np.arange(len(queries)), count)
        place = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + start[row]
        same = (place >= self._same_start[queries][row]) & (place < self._same_stop[queries][row])
        return Related(row, self._order[place], ~same)

    def is_match(self, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """(n, top) bool: whether gallery images (n, top), -1 for none, have the identity of their query (n,)."""
        identity = self.query_ids[queries][:, None]
        return (self.gallery_ids[gallery] == identity) & (identity >= 0) & (gallery >= 0)

    def blocks(self, queries: np.ndarray, rows: int, pairs: int) -> list[np.ndarray]:
        """`queries` in blocks of at most `rows`, and at most `pairs` images of their identities (or one query)."""
        count = (self._stop - self._start)[queries]
        blocks, low, held = [], 0, 0
        for high, more in enumerate(count.tolist()):
            if high > low and (high - low == rows or held + more > pairs):
                blocks.append(queries[low:high])
                low, held = high, 0
            held += more
        if low < len(queries):
            blocks.append(queries[low:])
        return blocks


def _labels(values, name: str, length: int) -> np.ndarray:
    values = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if values.ndim != 1 or len(values) != length:
        raise ValueError(
            f"{name}: expected {length} whole numbers, one for each row of features, found shape {values.shape}"
        )
    if values.dtype.kind not in "iub":
        if values.dtype.kind != "f" or not np.isfinite(values).all() or (values != np.floor(values)).any():
            raise ValueError(f"{name}: expected whole numbers, found {values.dtype} with others (NaN, fractions, text)")
    return values.astype(np.int64)
