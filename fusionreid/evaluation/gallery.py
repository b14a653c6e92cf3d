"""A gallery of pictures on disk: their features in one file, kept up to date, and searched."""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..data import Record
from ..data.cache import decode
from ..files import atomic_write, locked, read_lines, write_lines, writing
from ..models.checkpoints import digest
from ..models.fusionreid import FusionReID
from ..options import expect
from .distances import as_rows, real_numbers, smallest
from .embedding import Pictures, embed_batches, normalised

SUFFIXES = {
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
}
BLOCK = 1 << 24  # numbers of the gallery that are in memory at once


class Entry(NamedTuple):
    """What a row of features was made from. If it is as before, the row is kept."""

    name: str  # relative to the gallery's folder of features
    size: int  # in bytes
    modified: int  # in nanoseconds
    camera: int


class Gallery:
    """The features of pictures, on disk, for galleries larger than memory.

    The first use embeds the pictures. Later uses embed those that came or changed, and forget those
    that are gone. If the work is cut off, what was embedded is kept. Another model, or another
    precision, has features of its own.

    `<folder>/<digest>/pictures.jsonl` names the file of features, (N, D) float16, L2-normalised,
    and has a line for each of its rows.

    Args:
        folder: of the features.
        images: paths, whose cameras are unseen, or records, whose cameras are those of training.
        options: of `embed_batches`.

    Attributes:
        paths: the pictures of the rows, in order.
        features: the memory map, read-only. `evaluate_ranking` takes it block by block.
        unreadable: why a picture was left out, by its path.

    Raises:
        FileNotFoundError: a picture, which is named, is not there.
        ValueError: no picture can be read, or the index is damaged; the message says what to do.
        OSError: a file, which is named, cannot be written (read-only, disk full).
    """

    def __init__(
        self,
        folder: str | Path,
        model: FusionReID,
        images: Sequence[str | Path | Record],
        **options,
    ):
        expect("model", model, FusionReID)
        expect("batch_size", options.get("batch_size", 1), int, 1)
        precision = options.get("precision", "float32")
        self._root = Path(folder).absolute()
        self._index = self._root / f"{digest(model)}-{precision}" / "pictures.jsonl"
        self._width = sum(model.widths.values())
        self.unreadable: dict[Path, str] = {}
        # A picture that is listed twice is one row.
        wanted = list(dict.fromkeys(self._entry(image, model.num_cameras) for image in images))
        file, entries = self._read()
        if set(entries) != set(wanted):
            self._index.parent.mkdir(parents=True, exist_ok=True)
            with locked(self._index.with_name("gallery.lock")), writing(self._index):
                file, entries = self._update(model, wanted, options)
        if not entries:
            why = next(iter(self.unreadable.values()), "")
            raise ValueError(
                f"{self._root}: expected at least one picture that can be read, "
                f"found none among {len(wanted)}. {why}".rstrip()
            )
        self.paths = [self._path(entry) for entry in entries]
        self.features = np.memmap(file, np.float16, "r", shape=(len(entries), self._width))

    def search(self, vectors: np.ndarray, top: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The gallery's most similar pictures to vectors (Q, D), L2-normalised, as of `embed`.

        Returns cosine similarities (Q, top) float32, descending, and their rows (Q, top) int64;
        fewer columns where the gallery is smaller.
        """
        queries = as_rows(real_numbers(vectors, "vectors"), slice(None), "cpu")
        top = expect("top", top, int, 1)
        if queries.shape[1] != self._width:
            raise ValueError(
                f"vectors: expected {self._width} numbers each, found {queries.shape[1]}: "
                "another model's"
            )

        def distances() -> Iterator[tuple[int, np.ndarray]]:
            step = max(1, BLOCK // self._width)
            for low in range(0, len(self.features), step):
                block = torch.from_numpy(self.features[low : low + step].copy()).float()
                yield low, -(queries @ block.T).numpy()

        opposites, rows = smallest(distances(), top)
        return -opposites, rows

    def _entry(self, image: str | Path | Record, num_cameras: int) -> Entry:
        path = image
        camera = -1
        if isinstance(image, Record):
            path = image.path
            if image.camera < num_cameras:
                camera = image.camera
        status = os.stat(path)
        # A relative name, so that a folder of pictures can be moved with its features inside.
        name = os.path.relpath(path, self._root)
        return Entry(name, status.st_size, status.st_mtime_ns, camera)

    def _path(self, entry: Entry) -> Path:
        return Path(os.path.normpath(self._root / entry.name))

    def _read(self) -> tuple[Path, list[Entry]]:
        """The file of features, and what its rows were made from; a row is there in both or not."""
        try:
            header, *rows = read_lines(self._index) or [{"features": "none"}]
            file = self._index.with_name(header["features"])
            entries = [Entry(*row) for row in rows]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self._index}: expected an index of pictures, found something else ({error}); "
                f"delete {self._index.parent}, and it is made anew"
            ) from error
        size = file.stat().st_size if file.is_file() else 0
        return file, entries[: size // (2 * self._width)]

    def _update(
        self, model: FusionReID, wanted: list[Entry], options: dict
    ) -> tuple[Path, list[Entry]]:
        """Drops the rows that are no longer wanted, then embeds the pictures that have no row."""
        file, entries = self._read()  # again: another process may have been faster
        if not file.is_file() or not set(entries) <= set(wanted):
            file, entries = self._without(file, entries, set(wanted))
        known = set(entries)
        new = [entry for entry in wanted if entry not in known]
        unreadable: dict[int, str] = {}
        paths = [self._path(entry) for entry in new]
        pictures = Pictures(paths, model.config.image_size, unreadable)
        cameras = np.array([entry.camera for entry in new], np.int64)
        # Written, not mapped: a full disk is an OSError here, and the end of the process in a map.
        with open(file, "r+b") as features, open(self._index, "a", encoding="utf-8") as lines:
            features.seek(2 * self._width * len(entries))
            features.truncate()  # rows that a killed process did not list
            for indices, vectors in embed_batches(model, pictures, cameras, **options):
                vectors = normalised(vectors).astype(np.float16)
                for index, vector in zip(indices, vectors, strict=True):
                    if index not in unreadable:
                        features.write(vector.tobytes())
                _to_disk(features)  # before they are listed
                for index in indices:
                    if index not in unreadable:
                        lines.write(json.dumps(new[index]) + "\n")
                        entries.append(new[index])
                _to_disk(lines)
        self.unreadable = {paths[index]: why for index, why in unreadable.items()}
        return file, entries

    def _without(
        self, old: Path, entries: list[Entry], wanted: set[Entry]
    ) -> tuple[Path, list[Entry]]:
        """A new file of features with the wanted rows of the old one alone; the index names it."""
        rows = [row for row, entry in enumerate(entries) if entry in wanted]
        kept = [entries[row] for row in rows]
        file = self._index.with_name(f"features-{secrets.token_hex(4)}.bin")
        with open(file, "wb") as features:
            if kept:
                vectors = np.memmap(old, np.float16, "r", shape=(len(entries), self._width))
                for row in rows:
                    features.write(vectors[row].tobytes())
            _to_disk(features)
        write_lines(self._index, [{"features": file.name}, *kept])
        for other in self._index.parent.glob("features*.bin"):  # also of a killed process
            if other != file:
                other.unlink()
        return file, kept


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def pictures_in(folder: str | Path) -> list[Path]:
    """The image files in a folder and below, in order, without hidden ones.

    Raises ValueError if there are none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(f"{folder}: expected a folder of pictures, found {found}")
    pictures = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                pictures.append(Path(parent) / name)
    if not pictures:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise ValueError(f"{folder}: expected pictures ({suffixes}), found none in it or below")
    return pictures


def write_sheet(
    path: str | Path, queries: Sequence[Path], results: Sequence[Sequence[tuple[Path, float]]]
) -> None:
    """Writes a contact sheet: a row for each query, with the query first.

    `results` are the pictures of each query, most similar first, and their similarities.
    """
    height, width = 128, 64  # of a picture
    gap = 8
    line = 14  # of text
    font = ImageFont.load_default(11)
    columns = 1 + max(len(row) for row in results)
    row_height = height + line + gap
    size = (columns * (width + gap) + 2 * gap, len(queries) * row_height + gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)

    def place(picture: Path, label: str, x: int, y: int) -> None:
        sheet.paste(Image.fromarray(decode(picture, (height, width))), (x, y))
        draw.text((x, y + height), label, "black", font)

    for number, (query, row) in enumerate(zip(queries, results, strict=True)):
        y = gap + number * row_height
        place(query, "query", gap, y)
        for column, (picture, similarity) in enumerate(row, start=1):
            place(picture, f"{similarity:.4f}", 2 * gap + column * (width + gap), y)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
