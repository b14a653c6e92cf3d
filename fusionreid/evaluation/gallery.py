"""A gallery of pictures on disk: their features in one file, kept up to date, and searched."""

import json
import os
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..data import Record
from ..data.cache import decode
from ..files import atomic_write, locked, read_json, write_json
from ..models.checkpoints import digest
from ..models.fusionreid import FusionReID
from ..options import expect
from .distances import as_tensor
from .embedding import Pictures, embed_batches, normalised

SUFFIXES = ".avif .bmp .gif .jfif .jpe .jpeg .jpg .png .tif .tiff .webp".split()
SAVE_EVERY = 60  # seconds of embedding that a killed process loses at most


class Entry(NamedTuple):
    """What a vector was made from. If it is as before, the vector is kept."""

    name: str  # relative to the gallery's folder of features
    size: int  # in bytes
    modified: int  # in nanoseconds
    camera: int


class Gallery:
    """The features of pictures, in a file of float16 beside them: about a kilobyte a picture.

    The first use embeds the pictures. Later uses embed those that came or changed, and forget those
    that are gone. Another model, or another precision, has a file of its own.

    Args:
        folder: of the features.
        images: paths, whose cameras are unseen, or records, whose cameras are those of training.
        options: of `embed_batches`.

    Attributes:
        paths: the pictures, in the order of `images`, each once.
        features: (N, D) float16, L2-normalised, a row for each of them.
        unreadable: why a picture was left out, by its path.
        embedded: how many pictures were embedded just now, in so many `seconds`.

    Raises:
        FileNotFoundError: a picture, which is named, is not there.
        ValueError: no picture can be read, or the file of features is damaged.
        OSError: the folder, which is named, or its file cannot be written (read-only, disk full).
    """

    def __init__(
        self,
        folder: str | Path,
        model: FusionReID,
        images: Sequence[str | Path | Record],
        **options,
    ):
        expect("model", model, FusionReID)
        self._root = Path(folder).absolute()
        precision = options.get("precision", "float32")
        self.file = self._root / f"{digest(model)}-{precision}.npz"
        self.unreadable: dict[Path, str] = {}
        self.embedded = 0
        self.seconds = 0.0
        entries = list(dict.fromkeys(self._entry(image, model.num_cameras) for image in images))
        vectors = self._read()
        if set(vectors) != set(entries):
            self._check_writable()
            with locked(self.file.with_suffix(".lock")):
                vectors = self._read()  # again: another process may have been faster
                before = set(vectors)
                vectors = {entry: vectors[entry] for entry in entries if entry in vectors}
                new = [entry for entry in entries if entry not in vectors]
                self._embed(model, new, vectors, options)
                if set(vectors) != before:  # a picture that cannot be read changes nothing
                    self._write(vectors)
        rows = [entry for entry in entries if entry in vectors]
        if not rows:
            why = next(iter(self.unreadable.values()), "")
            raise ValueError(
                f"{self._root}: expected at least one picture that can be read, "
                f"found none among {len(entries)}. {why}".rstrip()
            )
        self.paths = [self._path(entry) for entry in rows]
        self.features = np.stack([vectors[entry] for entry in rows])

    def search(self, vectors: np.ndarray, top: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """The gallery's most similar pictures to vectors (Q, D), L2-normalised, as of `embed`.

        Returns cosine similarities (Q, top) float32, descending, and their rows (Q, top) int64;
        fewer columns where the gallery is smaller.
        """
        queries = as_tensor(vectors, "vectors").cpu().float()
        top = expect("top", top, int, 1)
        width = self.features.shape[1]
        if queries.shape[1] != width:
            raise ValueError(
                f"vectors: expected {width} numbers each, found {queries.shape[1]}: another model's"
            )
        similarities = queries @ torch.from_numpy(self.features).float().T
        values, rows = similarities.sort(dim=1, descending=True, stable=True)
        return values[:, :top].numpy(), rows[:, :top].numpy()

    def _entry(self, image: str | Path | Record, num_cameras: int) -> Entry:
        path, _, camera = image if isinstance(image, Record) else Record(image, -1, -1)
        status = os.stat(path)
        # A relative name, so that a folder of pictures can be moved with its features inside.
        name = os.path.relpath(path, self._root)
        is_seen = camera < num_cameras
        return Entry(name, status.st_size, status.st_mtime_ns, camera if is_seen else -1)

    def _path(self, entry: Entry) -> Path:
        return Path(os.path.normpath(self._root / entry.name))

    def _check_writable(self) -> None:
        """Makes the folder; what cannot be kept is found now, and not after the embedding."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self._root).close()
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}; the features need a folder that can be written: "
                "name another one (search: --index FOLDER)",
                str(self._root),
            ) from error

    def _read(self) -> dict[Entry, np.ndarray]:
        """The vectors that the file has."""
        if not self.file.is_file():
            return {}
        try:
            with np.load(self.file) as arrays:
                entries = [Entry(*row) for row in json.loads(str(arrays["entries"]))]
                return dict(zip(entries, arrays["features"], strict=True))
        except Exception as error:  # numpy raises many kinds for a damaged file
            raise ValueError(
                f"{self.file}: expected the features of a gallery, found something else "
                f"({error}); delete it, and it is made anew"
            ) from error

    def _write(self, vectors: dict[Entry, np.ndarray]) -> None:
        with atomic_write(self.file) as temporary:
            features = np.array(list(vectors.values()), np.float16)
            np.savez(temporary, entries=json.dumps(list(vectors)), features=features)

    def _embed(
        self,
        model: FusionReID,
        entries: list[Entry],
        vectors: dict[Entry, np.ndarray],
        options: dict,
    ) -> None:
        """Adds the vectors of pictures; writes them now and then."""
        paths = [self._path(entry) for entry in entries]
        pictures = Pictures(paths, model.config.image_size, self.unreadable)
        cameras = np.array([entry.camera for entry in entries], np.int64)
        started = time.monotonic()
        saved = started
        for indices, batch in embed_batches(model, pictures, cameras, **options):
            for index, vector in zip(indices, normalised(batch).astype(np.float16), strict=True):
                if paths[index] not in self.unreadable:
                    vectors[entries[index]] = vector
            if time.monotonic() - saved > SAVE_EVERY:
                self._write(vectors)
                saved = time.monotonic()
        self.seconds = time.monotonic() - started
        self.embedded = sum(entry in vectors for entry in entries)


def pictures_in(folder: str | Path, sheets: Collection[Path] = ()) -> list[Path]:
    """The image files in a folder and below, in order, without hidden ones.

    `sheets` are left out, too; they are resolved paths, as of `known_sheets`.

    Raises ValueError if there are no others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(f"{folder}: expected a folder of pictures, found {found}")
    pictures = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(parent) / name
            is_picture = not name.startswith(".") and path.suffix.lower() in SUFFIXES
            if is_picture and path.resolve() not in sheets:
                pictures.append(path)
    if not pictures:
        raise ValueError(
            f"{folder}: expected pictures ({', '.join(SUFFIXES)}), found none in it or below"
        )
    return pictures


def known_sheets(index: Path) -> set[Path]:
    """The contact sheets that searches with this folder of features have written."""
    file = index / "sheets.json"
    names = read_json(file) if file.is_file() else []
    return {(index / name).resolve() for name in names}


def remember_sheets(index: Path, sheets: Collection[Path]) -> None:
    """Writes down all contact sheets, by names relative to the folder of features."""
    if sheets != known_sheets(index):
        names = sorted(os.path.relpath(sheet, index.resolve()) for sheet in sheets)
        write_json(index / "sheets.json", names)


def write_sheet(
    path: str | Path, queries: Sequence[Path], results: Sequence[Sequence[tuple[Path, float]]]
) -> None:
    """Writes a contact sheet: a row for each query, with the query first.

    `results` are the pictures of each query, most similar first, and their similarities; all
    queries have equally many.
    """
    rows = []
    for query, hits in zip(queries, results, strict=True):
        tiles = [_tile(query, "query")]
        tiles += [_tile(picture, f"{similarity:.4f}") for picture, similarity in hits]
        rows.append(np.hstack(tiles))
    with atomic_write(path) as temporary:
        Image.fromarray(np.vstack(rows)).save(temporary)


def _tile(picture: Path, label: str) -> np.ndarray:
    """A picture of 128 x 64 pixels on white, with a label below."""
    pixels = decode(picture, (128, 64))
    tile = Image.new("RGB", (72, 150), "white")
    tile.paste(Image.fromarray(pixels), (4, 4))
    ImageDraw.Draw(tile).text((4, 133), label, "black", ImageFont.load_default(11))
    return np.asarray(tile)
