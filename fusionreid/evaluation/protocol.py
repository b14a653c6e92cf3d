"""Which gallery images a query is scored on: the protocol of Market-1501 (Zheng et al., ICCV 2015), Sec. IV.A."""

import numpy as np
from torch import Tensor


class Protocol:
    """The rules of Market-1501.

    A match has the query's identity and another camera. Images of the query's identity and camera are junk: they are
    left out of its ranking. A negative identity in the gallery is a distractor and matches nobody. A query without
    a match is not valid: it is not scored. Labels are (Q,) or (G,) whole numbers, else a ValueError names them; `shape`
    is Q and G, the rows of features.
    """

    def __init__(self, query_ids, gallery_ids, query_cameras, gallery_cameras, *, shape: tuple[int, int]):
        query_ids = whole_numbers(query_ids, "query_ids", shape[0])
        gallery_ids = whole_numbers(gallery_ids, "gallery_ids", shape[1])
        self._query_cameras = whole_numbers(query_cameras, "query_cameras", shape[0])
        self._gallery_cameras = whole_numbers(gallery_cameras, "gallery_cameras", shape[1])
        self._by_identity = np.argsort(gallery_ids, kind="stable")
        ordered = gallery_ids[self._by_identity]
        self._start = np.searchsorted(ordered, query_ids, "left")
        self._stop = np.where(query_ids < 0, self._start, np.searchsorted(ordered, query_ids, "right"))

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
        why = "are the camera numbers right?" if shared else "do query and gallery come from the same split?"
        raise ValueError(
            f"expected queries with a match in the gallery, found none: {shared} of {len(queries)} have images of "
            f"their identity there, all from the query's own camera, which the protocol leaves out; {why}"
        )


def whole_numbers(values, name: str, length: int) -> np.ndarray:
    """Labels of `length` images as int64; a ValueError names them."""
    values = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if values.shape != (length,):
        raise ValueError(f"{name}: expected {length} whole numbers, one for each image, found shape {values.shape}")
    whole = values.dtype.kind in "iub"
    if not whole and (values.dtype.kind != "f" or not np.isfinite(values).all() or (values != np.floor(values)).any()):
        raise ValueError(f"{name}: expected whole numbers, found {values.dtype} with others (NaN, fractions, text)")
    return values.astype(np.int64)
