"""Readers of Market-1501, DukeMTMC-reID, MSMT17 (V1 and V2) and the synthetic set (Sec. IV.A).

Each set is read in the layout that it is distributed in. Its folder is `root` itself, or a folder below it whose name
begins with the set's name (`market1501`, `Market-1501-v15.09.15`, `dukemtmc-reid/DukeMTMC-reID`, `msmt17/MSMT17_V1`).
Cameras count from 0 and are never renumbered split by split.
"""

import functools
import hashlib
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..config import DataConfig, one_of
from ..files import read_json
from .layouts import (
    MARKET_FOLDERS,
    NAMES,
    Record,
    Splits,
    find,
    is_market_layout,
    msmt17_version,
    read,
)
from .overlaps import overlaps
from .synthetic import RENDERER


@dataclass(frozen=True)
class Dataset:
    """A re-identification set. Identities of `train` are 0 to n - 1; those of the other splits are as in the files."""

    name: str
    version: str  # "V1, 3f2a9c01": MSMT17's version, the digest of the files; or "demo-0, v3": size, seed, renderer
    root: Path  # the folder that was read
    train: list[Record]
    query: list[Record]
    gallery: list[Record]

    @property
    def splits(self) -> dict[str, list[Record]]:
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def num_identities(self) -> int:
        """Identities in `train`."""
        return 1 + max(record.identity for record in self.train)

    @property
    def num_cameras(self) -> int:
        """One more than the highest camera index of any split."""
        return 1 + max(record.camera for split in self.splits.values() for record in split)

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {len(records):,}" for split, records in self.splits.items())
        return f"{f'{self.name} {self.version}'.strip()} in {self.root}: {counts}"


class Counts(NamedTuple):
    identities: int
    images: int
    cameras: int


# Identities of a gallery include the distractors' (Market-1501: identity 0; DukeMTMC-reID: 408 people).
PUBLISHED = {
    "market1501": {
        "train": Counts(751, 12936, 6),
        "query": Counts(750, 3368, 6),
        "gallery": Counts(751, 15913, 6),
    },
    "dukemtmc": {
        "train": Counts(702, 16522, 8),
        "query": Counts(702, 2228, 8),
        "gallery": Counts(1110, 17661, 8),
    },
    "msmt17": {
        "train": Counts(1041, 32621, 15),
        "query": Counts(3060, 11659, 15),
        "gallery": Counts(3060, 82161, 15),
    },
}


def open_data(config: DataConfig, root: str | Path) -> Dataset:
    """Reads the set that `config` names; the synthetic one is rendered if it is not there. Raises as `open_dataset`.

    A set of another version than `config` says is a ValueError, as its results would be taken for others'.
    """
    if config.name == "synthetic" and not (Path(root) / MARKET_FOLDERS["train"]).is_dir():
        from .synthetic.build import build  # rendering needs the optional package anny

        build(root, config.size, config.seed)
    dataset = open_dataset(config.name, root, size=config.size, seed=config.seed)
    expected = (
        f"{config.size}-{config.seed}, {config.version}"
        if config.name == "synthetic"
        else config.version
    )
    # Pictures without a manifest are called like their folder: they are the reader's own.
    if config.version and dataset.version not in (expected, dataset.root.resolve().name):
        raise ValueError(
            f"{dataset.root}: expected {config.name} {expected}, found {dataset.version}: other files"
        )
    return dataset


def open_dataset(
    name: str, root: str | Path = "data", *, size: str = "demo", seed: int = 0
) -> Dataset:
    """Reads "market1501", "dukemtmc", "msmt17" or "synthetic".

    `root` is the folder that holds the set's folder, or that itself; `size` and `seed` say which synthetic set. Warns
    of counts that are not the published ones, of images in two splits and of people in training and test.

    Raises FileNotFoundError: no such folder (with what is there and the layout that is expected), or no such image;
    ValueError: an unknown name, a file name that is not like the set's, an image listed twice, an empty split, a
    synthetic set that is not the one of its manifest.
    """
    one_of("name", name, NAMES)
    root = Path(root)
    folder = _find_synthetic(root, size, seed) if name == "synthetic" else find(name, root)
    splits = read(name, folder)
    version, sizes = _version(name, folder, splits)
    if name == "msmt17":
        print(f"MSMT17 {version} in {folder}", file=sys.stderr)
    for split, records in splits.items():
        published = PUBLISHED[name][split].images if name in PUBLISHED else len(records)
        if len(records) != published:
            found = f"{split} has {len(records):,} images; {name} as published has {published:,}"
            warnings.warn(f"{folder}: {found}. Is the set complete?", stacklevel=2)
    for found in overlaps(
        splits, sizes, same_people=name != "msmt17"
    ):  # MSMT17 counts people from 0 in both parts
        warnings.warn(f"{folder}: {found}", stacklevel=2)
    labels = {
        identity: label
        for label, identity in enumerate(sorted({r.identity for r in splits["train"]}))
    }
    splits["train"] = [
        record._replace(identity=labels[record.identity]) for record in splits["train"]
    ]
    return Dataset(name, version, folder, **splits)


def with_version(data: DataConfig, root: str | Path) -> DataConfig:
    """`data` with its version, if it has none: the renderer's, or that of the files of a real set under `root`.

    Without such files it stays "". They are looked at again when the date of a folder or of a list has changed.
    """
    if data.version:
        return data
    if data.name == "synthetic":
        return replace(data, version=f"v{RENDERER}")
    try:
        folder = find(data.name, Path(root))
        dates = sorted(
            (path.name, path.stat().st_mtime_ns) for path in folder.iterdir() if path.exists()
        )
        return replace(data, version=_version_once(data.name, folder, tuple(dates)))
    except (OSError, ValueError):  # `open_data` will say it
        return data


@functools.lru_cache(maxsize=8)
def _version_once(name: str, folder: Path, dates: tuple[tuple[str, int], ...]) -> str:
    return _version(name, folder, read(name, folder))[0]


def _version(name: str, folder: Path, splits: Splits) -> tuple[str, dict[Path, int]]:
    """The version of what was read, and each image's size in bytes.

    For a real set it ends with the digest of names, sizes, splits and identities: with other images, other results.
    """
    sizes = {
        record.path: record.path.stat().st_size for records in splits.values() for record in records
    }
    if name == "synthetic":
        return _synthetic_version(folder, splits), sizes
    listed = sorted(
        f"{split}/{record.path.relative_to(folder).as_posix()}\0{record.identity}\0{sizes[record.path]}"
        for split, records in splits.items()
        for record in records
    )
    digest = hashlib.sha256("\n".join(listed).encode(errors="surrogateescape")).hexdigest()[:8]
    return ", ".join(
        filter(None, [msmt17_version(folder) if name == "msmt17" else "", digest])
    ), sizes


def count(records: list[Record]) -> Counts:
    """Identities, images and cameras of a split."""
    return Counts(
        len({r.identity for r in records}), len(records), len({r.camera for r in records})
    )


def _find_synthetic(root: Path, size: str, seed: int) -> Path:
    """The folder of a synthetic set. `root` may be the folder itself, with or without a manifest."""
    folder = root if is_market_layout(root) else root / "synthetic" / f"{size}-{seed}"
    manifest = folder / "manifest.json"
    if folder != root and not manifest.is_file():
        command = f"python -m fusionreid data synthetic --size {size} --seed {seed} --root {root}"
        raise FileNotFoundError(
            f"{manifest}: the synthetic set is not there or not finished; make it with: {command}"
        )
    return folder


def _synthetic_version(folder: Path, splits: Splits) -> str:
    """Size, seed and renderer from the manifest, whose counts must be those of the files; else the folder's name."""
    manifest = folder / "manifest.json"
    about = read_json(manifest) if manifest.is_file() else {}
    found = {sub: len(splits[split]) for split, sub in MARKET_FOLDERS.items()}
    if not isinstance(about, dict):
        raise ValueError(f"{manifest}: expected size, seed and version, found {about!r}")
    if about.get("counts", found) != found:
        remedy = "delete the folder, and it is rendered anew"
        raise ValueError(f"{manifest}: expected {about['counts']} images, found {found}; {remedy}")
    known = {"size", "seed", "version"} <= set(about)
    return (
        f"{about['size']}-{about['seed']}, v{about['version']}" if known else folder.resolve().name
    )


def table(dataset: Dataset) -> str:
    """For `data check`: identities, images and cameras of each split beside the published ones, in aligned columns."""
    rows = [["", "identities", "published", "images", "published", "cameras", "published"]]
    for split, records in dataset.splits.items():
        published = PUBLISHED[dataset.name][split] if dataset.name in PUBLISHED else ["-"] * 3
        pairs = zip(count(records), published, strict=True)
        rows.append(
            [split, *(f"{number:,}" if number != "-" else "-" for pair in pairs for number in pair)]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def verdict(dataset: Dataset) -> str:
    """One line: which numbers are not the published ones; "" if none are published."""
    differ = [
        f"{split}: {kind} {value:,} (published: {expected:,})"
        for split, published in PUBLISHED.get(dataset.name, {}).items()
        for kind, value, expected in zip(
            Counts._fields, count(dataset.splits[split]), published, strict=True
        )
        if value != expected
    ]
    if dataset.name in PUBLISHED and not differ:
        return "Complete: identities, images and cameras of each split are the published ones."
    return f"Not as published. {'; '.join(differ)}." if differ else ""
