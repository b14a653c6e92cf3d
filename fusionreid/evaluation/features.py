"""Features on disk: extracted once, resumed when interrupted, ranked without being loaded.

A store is a folder: `features.npy`, a memory-mapped array that grows row by row, `labels.npz` with the identities,
cameras and paths of its images, and `store.json` with the model's fingerprint and how many rows are done.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..files import atomic_write, read_json, write_json

DTYPES = ("float32", "float16")


class FeatureStore:
    """Features of a split in a memory-mapped file, with what ranking needs to know of its images.

    Ranking takes a store in place of an array and reads it block by block:

        evaluate_ranking(query, gallery, query.identities, gallery.identities, query.cameras, gallery.cameras)

    Attributes:
        path: the store's folder.
        count, width, dtype: rows, columns and type of the features.
        fingerprint: of the model and the split that they come from.
        identities, cameras: (count,) int64.
        paths: (count,) text, the images' files, or empty.
        done: rows that are written, from the first on; an extraction goes on there.
    """

    def __init__(
        self,
        path: Path,
        header: dict,
        identities: np.ndarray,
        cameras: np.ndarray,
        paths: np.ndarray,
        *,
        writable: bool,
    ):
        self.path = Path(path)
        self.count, self.width, self.dtype = header["count"], header["width"], header["dtype"]
        self.fingerprint, self._labels, self._done = header["fingerprint"], header["labels"], header["done"]
        self.identities, self.cameras, self.paths = identities, cameras, paths
        self._array = _map(self.path, self.count, self.width, self.dtype, "r+" if writable else "r")
        self._writable = writable

    @classmethod
    def create(
        cls,
        path: str | Path,
        count: int,
        width: int,
        fingerprint: str,
        *,
        identities,
        cameras,
        paths: Sequence[str | Path] = (),
        dtype: str = "float32",
    ) -> FeatureStore:
        """A store to write to. One that is there, of the same model, images and shape, is resumed; another replaced.

        Args:
            path: its folder.
            count, width: rows and columns of the features.
            fingerprint: of the model; other weights must have another.
            identities, cameras: (count,) whole numbers.
            paths: the images' files, `count` or none.
            dtype: "float32" or, at half the size, "float16".

        Raises:
            ValueError: for labels of another length than `count`, or an unknown dtype.
            OSError: naming the file, where the folder cannot be written or the disk is too small.
        """
        path = Path(path)
        if dtype not in DTYPES:
            raise ValueError(f"dtype={dtype!r} is not known; it is one of: {', '.join(map(repr, DTYPES))}")
        if count < 1 or width < 1:
            raise ValueError(f"count={count}, width={width}: expected 1 or more of both")
        identities, cameras = np.asarray(identities, np.int64), np.asarray(cameras, np.int64)
        paths = np.array([os.fspath(part) for part in paths], dtype=np.str_)
        for name, values in (("identities", identities), ("cameras", cameras), ("paths", paths)):
            if values.shape != (count,) and not (name == "paths" and len(values) == 0):
                raise ValueError(f"{name}: expected {count}, one for each row of features, found shape {values.shape}")
        header = {
            "fingerprint": fingerprint,
            "labels": _digest(identities, cameras, paths),
            "count": int(count),
            "width": int(width),
            "dtype": dtype,
            "done": 0,
        }
        try:
            store = cls.open(path, writable=True)
            if all(store._header()[name] == header[name] for name in header if name != "done"):
                return store
            del store
        except (OSError, ValueError):
            pass  # nothing there, or half of it: begin
        (path / "store.json").unlink(missing_ok=True)  # from here on there is no store, until it is whole again
        with atomic_write(path / "features.npy") as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=(count, width))
            del array
            _reserve(temporary)
        with atomic_write(path / "labels.npz") as temporary:
            np.savez(temporary, identities=identities, cameras=cameras, paths=paths)
        write_json(path / "store.json", header)
        return cls.open(path, writable=True)

    @classmethod
    def open(cls, path: str | Path, *, fingerprint: str | None = None, writable: bool = False) -> FeatureStore:
        """A store that is there.

        Raises:
            FileNotFoundError: where there is none.
            ValueError: naming the file, where it is damaged, or `fingerprint` is given and another model wrote it.
        """
        path = Path(path)
        if not (path / "store.json").is_file():
            raise FileNotFoundError(f"{path}: no feature store here; expected store.json in it")
        header = read_json(path / "store.json")
        missing = {"fingerprint", "labels", "count", "width", "dtype", "done"} - set(header)
        if missing:
            raise ValueError(f"{path / 'store.json'}: expected the field(s) {', '.join(sorted(missing))}, found none")
        if fingerprint is not None and header["fingerprint"] != fingerprint:
            raise ValueError(
                f"{path}: expected features of the model {fingerprint}, found those of {header['fingerprint']}"
            )
        try:
            with np.load(path / "labels.npz") as labels:
                identities, cameras, paths = labels["identities"], labels["cameras"], labels["paths"]
        except Exception as error:
            raise ValueError(
                f"{path / 'labels.npz'}: expected identities, cameras and paths, cannot read them ({error})"
            ) from error
        if _digest(identities, cameras, paths) != header["labels"]:
            raise ValueError(f"{path / 'labels.npz'}: expected the labels that store.json names, found others")
        return cls(path, header, identities, cameras, paths, writable=writable)

    def __len__(self) -> int:
        return self.count

    @property
    def done(self) -> int:
        return self._done

    @property
    def complete(self) -> bool:
        return self._done == self.count

    @property
    def features(self) -> np.ndarray:
        """(count, width) memory map, read-only.

        Raises:
            ValueError: where the extraction has not finished.
        """
        if not self.complete:
            raise ValueError(
                f"{self.path}: expected {self.count} rows of features, found {self._done}; "
                f"run the extraction again, it goes on there"
            )
        view = self._array[:]
        view.flags.writeable = False
        return view

    def write(self, start: int, features) -> None:
        """Writes rows from `start` on, which must not leave a gap; what is done is then on the disk.

        Args:
            start: 0 to `done`.
            features: (rows, width) array or tensor.

        Raises:
            ValueError: for another shape, rows outside the store, a gap, or a number that is not finite.
        """
        if not self._writable:
            raise ValueError(f"{self.path}: opened for reading; FeatureStore.create opens it for writing")
        if isinstance(features, torch.Tensor):
            features = features.detach().to(device="cpu", dtype=torch.float32).numpy()
        with np.errstate(over="ignore"):  # what is too large for the type is found below
            rows = np.asarray(features).astype(self.dtype)
        if rows.ndim != 2 or rows.shape[1] != self.width:
            raise ValueError(f"{self.path}: expected features of shape (rows, {self.width}), found {rows.shape}")
        if not 0 <= start <= self._done or start + len(rows) > self.count:
            raise ValueError(
                f"{self.path}: expected rows from 0 to {self._done} on, up to {self.count}, "
                f"found {start} to {start + len(rows)}"
            )
        if not np.isfinite(rows).all():
            raise ValueError(
                f"{self.path}: expected finite numbers, which {self.dtype} can hold, found others in row "
                f"{start + int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])}"
            )
        self._array[start : start + len(rows)] = rows
        self._array.flush()
        if start + len(rows) > self._done:
            self._done = start + len(rows)
            write_json(self.path / "store.json", self._header())

    def append(self, features) -> None:
        """Writes the rows that come after those that are done."""
        self.write(self._done, features)

    def _header(self) -> dict:
        return {
            "fingerprint": self.fingerprint,
            "labels": self._labels,
            "count": self.count,
            "width": self.width,
            "dtype": self.dtype,
            "done": self._done,
        }


def _map(path: Path, count: int, width: int, dtype: str, mode: str) -> np.memmap:
    file = path / "features.npy"
    try:
        array = np.load(file, mmap_mode=mode)
    except FileNotFoundError:
        raise ValueError(f"{file}: expected features here, found no file") from None
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file}: expected ({count}, {width}) {dtype}, found a damaged file ({error})") from error
    if array.shape != (count, width) or array.dtype != dtype:
        raise ValueError(f"{file}: expected ({count}, {width}) {dtype}, found {array.shape} {array.dtype}")
    return array


def _reserve(file: Path) -> None:
    """Takes the file's space on the disk now: a full disk is an error here, not a crash while features are written."""
    if hasattr(os, "posix_fallocate"):
        with open(file, "r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)


def _digest(identities: np.ndarray, cameras: np.ndarray, paths: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in (identities.astype("<i8").tobytes(), cameras.astype("<i8").tobytes(), "\n".join(paths).encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]
