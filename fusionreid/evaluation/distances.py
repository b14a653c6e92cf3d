"""Distances between queries and gallery, a block at a time: what ranking and re-ranking (Sec. IV.A) read.

A source of distances has `num_queries`, `num_gallery`, `device` and `block(queries, gallery) -> (rows, columns)`,
whose result the caller may change, and which a `Buffer` can hold.
Three exist: `FeatureDistances` here, from features; `MatrixDistances` here, from a matrix that the caller has; and
`fusionreid.evaluation.rerank.RerankedDistances`. None of them, the second aside, ever holds queries x gallery numbers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .blocks import Buffer

METRICS = ("euclidean", "cosine")
CHUNK_BYTES = 48 << 20  # float32 copies of features made at a time, for each thread
# A matrix product picks its kernel by its shape, and thin ones add up in another order. Products at least this large
# give a pair the same bits wherever it stands in whichever block, so that equal features are equally far: a tie.
LEAST_ROWS, LEAST_COLUMNS = 64, 512


class Features:
    """Rows of features as float32, whatever holds them: an array, a memory map, a tensor, a list.

    Args:
        values: (N, D) numbers; a `FeatureStore` counts as its array.
        name: what an error calls them.

    Raises:
        ValueError: for another number of dimensions, no rows, no columns, or values that are not real numbers.
    """

    def __init__(self, values, name: str):
        values = getattr(values, "features", values)
        if not isinstance(values, (np.ndarray, Tensor)):
            values = np.asarray(values)
        if values.ndim != 2:
            raise ValueError(f"{name}: expected features of shape (images, width), found {tuple(values.shape)}")
        if 0 in values.shape:
            raise ValueError(f"{name}: expected at least one image and one feature, found {tuple(values.shape)}")
        real = not values.is_complex() if isinstance(values, Tensor) else values.dtype.kind in "fiub"
        if not real:
            raise ValueError(f"{name}: expected real numbers, found {values.dtype}")
        self.values = values.detach() if isinstance(values, Tensor) else values
        self.name = name

    def __len__(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def row_name(self, row: int) -> str:
        """What an error calls a row."""
        return f"{self.name}, row {row}"

    @property
    def device(self) -> torch.device | None:
        """Where the features are, if they are a tensor."""
        return self.values.device if isinstance(self.values, Tensor) else None

    def rows(self, which: slice | np.ndarray, device: torch.device) -> Tensor:
        """(rows, D) float32 on `device`; not a copy where `values` is already so. `which`: a slice or indices."""
        if isinstance(self.values, Tensor):
            if not isinstance(which, slice):
                which = torch.from_numpy(which).to(self.values.device)
            return self.values[which].to(device=device, dtype=torch.float32)
        rows = np.ascontiguousarray(self.values[which], dtype=np.float32)
        if not rows.flags.writeable:  # torch has no read-only tensors
            rows = rows.copy()
        return torch.from_numpy(rows).to(device)

    def on(self, device: torch.device, most_bytes: float) -> Features:
        """The same as float32 on `device`, if they are elsewhere and fill no more than `most_bytes`; else these."""
        if 4 * len(self) * self.width > most_bytes or (self.device is not None and self.device.type == device.type):
            return self
        values = torch.empty(len(self), self.width, device=device)
        for chunk in self.chunks(0, len(self)):
            values[chunk] = self.rows(chunk, device)
        return Features(values, self.name)

    def chunks(self, start: int, stop: int):
        """Slices of [start, stop) whose float32 copies stay under CHUNK_BYTES."""
        step = max(LEAST_COLUMNS, CHUNK_BYTES // (4 * self.width))
        yield from (slice(low, min(stop, low + step)) for low in range(start, stop, step))


class Joined(Features):
    """Two sets of features as one, the second after the first, without a copy of either."""

    def __init__(self, first: Features, second: Features):
        if first.width != second.width:
            raise ValueError(
                f"{first.name} and {second.name}: expected one width, found {first.width} and {second.width}"
            )
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def row_name(self, row: int) -> str:
        split = len(self.first)
        return self.first.row_name(row) if row < split else self.second.row_name(row - split)

    @property
    def width(self) -> int:
        return self.first.width

    @property
    def device(self) -> torch.device | None:
        return self.first.device or self.second.device

    def on(self, device: torch.device, most_bytes: float) -> Features:
        if 4 * len(self) * self.width > most_bytes:
            return self
        return Joined(self.first.on(device, most_bytes), self.second.on(device, most_bytes))

    def rows(self, which: slice | np.ndarray, device: torch.device) -> Tensor:
        split = len(self.first)
        if isinstance(which, slice):
            if which.start >= split:
                return self.second.rows(slice(which.start - split, which.stop - split), device)
            if which.stop <= split:
                return self.first.rows(which, device)
            return torch.cat(
                [
                    self.first.rows(slice(which.start, split), device),
                    self.second.rows(slice(0, which.stop - split), device),
                ]
            )
        rows = torch.empty(len(which), self.width, device=device)
        for part, here, offset in ((self.first, which < split, 0), (self.second, which >= split, split)):
            if here.any():
                rows[torch.from_numpy(np.flatnonzero(here)).to(device)] = part.rows(which[here] - offset, device)
        return rows


class FeatureDistances:
    """Squared Euclidean or cosine distances between features, in float32.

    Args:
        query, gallery: (Q, D) and (G, D), whatever `Features` takes.
        metric: "euclidean", |q - g|^2, or "cosine", 1 - q.g / (|q| |g|).
        device: where products are computed; by default that of the first features that are a tensor, else the CPU.
            A gallery that fits in half of a GPU's free memory, and queries in a quarter, are moved there once; others
            come to it block by block.

    Raises:
        ValueError: for widths that differ, a number that is not finite, or a zero vector where `metric` is "cosine".
    """

    def __init__(self, query, gallery, *, metric: str = "euclidean", device=None):
        if metric not in METRICS:
            raise ValueError(f"metric={metric!r} is not known; it is one of: {', '.join(map(repr, METRICS))}")
        self.query = query if isinstance(query, Features) else Features(query, "query_features")
        self.gallery = gallery if isinstance(gallery, Features) else Features(gallery, "gallery_features")
        if self.query.width != self.gallery.width:
            raise ValueError(
                f"{self.query.name} and {self.gallery.name}: expected one width, "
                f"found {self.query.width} and {self.gallery.width}"
            )
        if device is None:
            device = self.query.device or self.gallery.device or "cpu"
        self.device = torch.device(device)
        self.metric = metric
        self.num_queries, self.num_gallery = len(self.query), len(self.gallery)
        if self.device.type == "cuda":
            one, free = self.gallery is self.query, torch.cuda.mem_get_info(self.device)[0]
            self.gallery = self.gallery.on(self.device, free / 2)
            self.query = self.gallery if one else self.query.on(self.device, free / 4)
        self.query_norms = self._squared_norms(self.query)
        self.gallery_norms = self.query_norms if self.gallery is self.query else self._squared_norms(self.gallery)

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray, buffer: Buffer | None = None) -> Tensor:
        """(rows, columns) float32 distances of some queries to some of the gallery, on `self.device`."""
        rows = self._prepared(self.query, queries, self.query_norms)
        offsets = self.query_norms[_index(queries, self.device)]
        count = len(rows)
        if count < LEAST_ROWS:
            rows = torch.nn.functional.pad(rows, (0, 0, 0, LEAST_ROWS - count))
            offsets = torch.nn.functional.pad(offsets, (0, LEAST_ROWS - count))
        columns = gallery.stop - gallery.start if isinstance(gallery, slice) else len(gallery)
        out = (buffer or Buffer()).take(len(rows), columns, self.device)
        start = gallery.start if isinstance(gallery, slice) else 0
        for chunk in self.gallery.chunks(0, columns):
            which = slice(chunk.start + start, chunk.stop + start) if isinstance(gallery, slice) else gallery[chunk]
            part = self._prepared(self.gallery, which, self.gallery_norms)
            self._product(rows, offsets, part, self.gallery_norms[_index(which, self.device)], out[:, chunk])
        return out[:count]

    def pairs(self, queries: np.ndarray, gallery: np.ndarray) -> Tensor:
        """(pairs,) distances of query i to gallery j, for lists of i and j; not to the last bit those of `block`."""
        out = torch.empty(len(queries), device=self.device)
        for chunk in self.query.chunks(0, len(queries)):
            rows = self._prepared(self.query, queries[chunk], self.query_norms)
            part = self._prepared(self.gallery, gallery[chunk], self.gallery_norms)
            dots = torch.linalg.vecdot(rows, part)
            if self.metric == "cosine":
                out[chunk] = 1 - dots
            else:
                norms = self.query_norms[_index(queries[chunk], self.device)]
                out[chunk] = norms + self.gallery_norms[_index(gallery[chunk], self.device)] - 2 * dots
        return out

    def bound(self) -> float:
        """No distance is larger than this."""
        if self.metric == "cosine":
            return 2.0
        return float((self.query_norms.max().sqrt() + self.gallery_norms.max().sqrt()) ** 2)

    def _product(self, rows: Tensor, offsets: Tensor, part: Tensor, norms: Tensor, out: Tensor) -> None:
        columns = len(part)
        if columns < LEAST_COLUMNS:
            part = torch.nn.functional.pad(part, (0, 0, 0, LEAST_COLUMNS - columns))
            norms = torch.nn.functional.pad(norms, (0, LEAST_COLUMNS - columns))
        product = out if columns == len(part) else torch.empty(len(rows), len(part), device=self.device)
        if self.metric == "cosine":
            product.fill_(1)
        else:
            torch.add(norms, offsets[:, None], out=product)
        product.addmm_(rows, part.T, alpha=-1 if self.metric == "cosine" else -2)
        if product is not out:
            out.copy_(product[:, :columns])

    def _prepared(self, features: Features, which, norms: Tensor) -> Tensor:
        rows = features.rows(which, self.device)
        return rows * norms[_index(which, self.device)].rsqrt()[:, None] if self.metric == "cosine" else rows

    def _squared_norms(self, features: Features) -> Tensor:
        norms = torch.empty(len(features), device=self.device)
        for chunk in features.chunks(0, len(features)):
            rows = features.rows(chunk, self.device)
            norms[chunk] = torch.linalg.vecdot(rows, rows)
        bad = (~torch.isfinite(norms)).nonzero()
        if len(bad):
            raise ValueError(
                f"{features.row_name(int(bad[0]))}: expected finite numbers whose squares float32 can "
                f"hold, found others here and in {len(bad) - 1} more rows"
            )
        if self.metric == "cosine" and bool((norms == 0).any()):
            raise ValueError(
                f"{features.row_name(int((norms == 0).nonzero()[0]))}: a zero vector has no direction, "
                f"and metric='cosine' needs one"
            )
        return norms


class MatrixDistances:
    """Distances that the caller has already computed: (Q, G) numbers.

    Raises:
        ValueError: for another number of dimensions, an empty matrix, or a number that is not finite.
    """

    def __init__(self, matrix, *, device=None):
        self.matrix = Features(matrix, "distances")
        self.num_queries, self.num_gallery = self.matrix.values.shape
        self.device = torch.device(device or "cpu")
        for chunk in self.matrix.chunks(0, self.num_queries):
            if not bool(torch.isfinite(self.matrix.rows(chunk, self.device)).all()):
                raise ValueError("distances: expected finite numbers, found NaN or infinity")

    def block(self, queries: slice | np.ndarray, gallery: slice | np.ndarray, buffer: Buffer | None = None) -> Tensor:
        rows = self.matrix.rows(queries, self.device)
        return rows[:, _index(gallery, self.device)].clone()

    def bound(self) -> float:
        return max(
            float(self.matrix.rows(chunk, self.device).max()) for chunk in self.matrix.chunks(0, self.num_queries)
        )


def _index(which: slice | np.ndarray, device: torch.device):
    return which if isinstance(which, slice) else torch.from_numpy(np.asarray(which)).to(device)
