"""A gallery of pictures on disk: their features in one file, kept up to date, and searched a block at a time."""

import json
import os
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

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
BLOCK = 1 << 24  # numbers of the gallery that a search holds at once


class Entry(NamedTuple):
    """What a row of features was made from; if it is as before, the row is kept."""

    name: str  # relative to the gallery's folder of features
    size: int  # in bytes
    modified: int  # in nanoseconds
    camera: int


class Gallery:
    """The features of pictures, on disk, for galleries larger than memory.

    The first use embeds the pictures; later ones embed those that came or changed, and forget those that are gone. What
    was embedded is kept if the work is cut off. Another model, or precision, has features of its own. `folder` gets
    `<digest>/features.bin`, (N, D) float16, L2-normalised, and `<digest>/pictures.jsonl`, its rows. Images are paths,
    whose cameras are unseen, or records, whose cameras are those of training; `options` are of `embed_batches`.

    `paths` are of the rows, in order (a new gallery's is that of `images`), `features` the read-only memory map, which
    `evaluate_ranking` reads block by block, `unreadable` the pictures that were left out, by path, and why.

    Raises FileNotFoundError, naming a picture that is not there; ValueError if none can be read; OSError, naming a file
    that cannot be written (read-only, full).
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
        self._root = Path(folder).absolute()
        self._folder = self._root / f"{digest(model)}-{options.get('precision', 'float32')}"
        self._features, self._pictures = (
            self._folder / "features.bin",
            self._folder / "pictures.jsonl",
        )
        self._width, self.unreadable = sum(model.widths.values()), {}
        wanted = list(dict.fromkeys(self._entry(image, model.num_cameras) for image in images))
        rows = self._read()
        if rows != wanted and set(rows) != set(wanted):
            self._folder.mkdir(parents=True, exist_ok=True)
            with locked(self._folder / "gallery.lock"), writing(self._features):
                rows = self._update(model, wanted, options)
        if not rows:
            found = f"{len(wanted)}, of which none can be read: {next(iter(self.unreadable.values()), '')}"
            raise ValueError(
                f"{self._root}: expected at least one picture, found {found.removesuffix(': ')}"
            )
        self.paths = [self._path(entry) for entry in rows]
        self.features = np.memmap(self._features, np.float16, "r", shape=(len(rows), self._width))

    def search(self, vectors: np.ndarray, top: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The gallery's most similar pictures to vectors (Q, D), L2-normalised, as `embed` gives them.

        Returns cosine similarities (Q, top) float32, descending, and their rows, int64; fewer of a smaller gallery.
        """
        queries, step = (
            as_rows(real_numbers(vectors, "vectors"), slice(None), "cpu"),
            max(1, BLOCK // self._width),
        )
        top = expect("top", top, int, 1)
        if queries.shape[1] != self._width:
            raise ValueError(
                f"vectors: expected {self._width} numbers each, found {queries.shape[1]}: another model's"
            )

        def blocks() -> Iterator[tuple[int, np.ndarray]]:
            for low in range(0, len(self.features), step):
                part = torch.from_numpy(self.features[low : low + step].copy()).float()
                yield low, -(queries @ part.T).numpy()

        opposite, rows = smallest(blocks(), top)
        return -opposite, rows

    def _entry(self, image: str | Path | Record, num_cameras: int) -> Entry:
        path, camera = (image.path, image.camera) if isinstance(image, Record) else (image, -1)
        status = os.stat(path)
        name = os.path.relpath(
            path, self._root
        )  # so that a folder can be moved with the features inside
        return Entry(
            name, status.st_size, status.st_mtime_ns, camera if camera < num_cameras else -1
        )

    def _path(self, entry: Entry) -> Path:
        return Path(os.path.normpath(self._root / entry.name))

    def _read(self) -> list[Entry | None]:
        """What each row holds; None is a free one. A later line of the file wins over an earlier one."""
        rows = []
        for row, entry in read_lines(self._pictures):
            rows += [None] * (row + 1 - len(rows))
            rows[row] = entry and Entry(*entry)
        written = (
            self._features.stat().st_size // (2 * self._width) if self._features.is_file() else 0
        )
        return rows[:written]

    def _update(self, model: FusionReID, wanted: list[Entry], options: dict) -> list[Entry]:
        """Embeds what is new into free rows, then closes gaps from the end. A row is free before it is written over."""
        rows = self._read()  # again: another process may have been faster
        kept, known = set(wanted), set(rows)
        rows = [entry if entry in kept else None for entry in rows]
        new = [entry for entry in wanted if entry not in known]
        write_lines(self._pictures, list(enumerate(rows)))
        free = [row for row, entry in enumerate(rows) if entry is None]
        slots = iter([*free, *range(len(rows), len(rows) + len(new))])
        unreadable: dict[int, str] = {}
        pictures = Pictures(
            [self._path(entry) for entry in new], model.config.image_size, unreadable
        )
        cameras = np.array([entry.camera for entry in new], np.int64)
        self._features.touch()
        # Written, not mapped: on a full disk an OSError, where writing to a memory map ends the process.
        with (
            open(self._features, "r+b") as file,
            open(self._pictures, "a", encoding="utf-8") as lines,
        ):
            for indices, vectors in embed_batches(model, pictures, cameras, **options):
                vectors = normalised(vectors).astype(np.float16)
                placed = [
                    (next(slots), i, v)
                    for i, v in zip(indices, vectors, strict=True)
                    if i not in unreadable
                ]
                for row, _, vector in placed:
                    file.seek(2 * self._width * row)
                    file.write(vector.tobytes())
                _to_disk(file)
                lines.writelines(json.dumps((row, new[index])) + "\n" for row, index, _ in placed)
                _to_disk(lines)
            rows = self._read()
            count = len(rows) - rows.count(None)
            holes = [row for row in range(count) if rows[row] is None]
            for hole, last in zip(
                holes, (row for row in range(count, len(rows)) if rows[row]), strict=True
            ):
                file.seek(2 * self._width * last)
                vector = file.read(2 * self._width)
                file.seek(2 * self._width * hole)
                file.write(vector)
                rows[hole] = rows[last]
            _to_disk(file)
            write_lines(self._pictures, list(enumerate(rows[:count])))
            file.truncate(2 * self._width * count)
        self.unreadable = {self._path(new[index]): why for index, why in unreadable.items()}
        return rows[:count]


def _to_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def pictures_in(folder: str | Path) -> list[Path]:
    """The image files under a folder in order, hidden ones left out; a ValueError if there are none."""
    folder, found = Path(folder), []
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'}"
        )
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = (name for name in sorted(files) if not name.startswith("."))
        found += [Path(parent) / name for name in visible if Path(name).suffix.lower() in SUFFIXES]
    if not found:
        raise ValueError(
            f"{folder}: expected pictures ({', '.join(sorted(SUFFIXES))}), found none in it or below"
        )
    return found


def write_sheet(
    path: str | Path, queries: Sequence[Path], found: Sequence[Sequence[tuple[Path, float]]]
) -> None:
    """Writes a picture: a row for each query, the query first, then the found pictures and their similarities."""
    high, wide, gap, text = 128, 64, 8, 14
    font = ImageFont.load_default(11)
    columns = 1 + max(map(len, found))
    sheet = Image.new(
        "RGB", (columns * (wide + gap) + 2 * gap, len(queries) * (high + text + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for row, (query, hits) in enumerate(zip(queries, found, strict=True)):
        tiles = [
            (query, "query"),
            *((picture, f"{similarity:.4f}") for picture, similarity in hits),
        ]
        for column, (picture, label) in enumerate(tiles):
            place = (
                gap + column * (wide + gap) + gap * (column > 0),
                gap + row * (high + text + gap),
            )
            sheet.paste(Image.fromarray(decode(picture, (high, wide))), place)
            draw.text((place[0], place[1] + high), label, "black", font)
    with atomic_write(path) as temporary:
        sheet.save(temporary)
