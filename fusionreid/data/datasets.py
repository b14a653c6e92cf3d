"""Readers of Market-1501, DukeMTMC-reID, MSMT17 (V1 and V2) and the synthetic set (Sec. IV.A).

Each set is read in the layout that it is distributed in. Its folder is `root` itself, or a folder below it whose name
begins with the set's name (`market1501`, `Market-1501-v15.09.15`, `dukemtmc-reid/DukeMTMC-reID`, `msmt17/MSMT17_V1`).
Cameras count from 0 and are never renumbered split by split.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..config import DataConfig, one_of
from ..files import read_json
from .synthetic import RENDERER


class Record(NamedTuple):
    """One image: its file, whom it shows, and which camera took it (from 0)."""

    path: Path
    identity: int
    camera: int


@dataclass(frozen=True)
class Dataset:
    """A re-identification set. Identities of `train` are 0 to n - 1; those of the other splits are as in the files."""

    name: str
    version: str  # "V1" or "V2" of MSMT17, "demo-0, v3" (size, seed and renderer) of the synthetic set; or ""
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
    "market1501": {"train": Counts(751, 12936, 6), "query": Counts(750, 3368, 6), "gallery": Counts(751, 15913, 6)},
    "dukemtmc": {"train": Counts(702, 16522, 8), "query": Counts(702, 2228, 8), "gallery": Counts(1110, 17661, 8)},
    "msmt17": {"train": Counts(1041, 32621, 15), "query": Counts(3060, 11659, 15), "gallery": Counts(3060, 82161, 15)},
}
MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
MSMT17_LISTS = {"train": "train", "val": "train", "query": "query", "gallery": "gallery"}  # list_train.txt: its split

_END = r"(?i:\.jpe?g|\.png|\.bmp)+$"  # some copies of Market-1501 have .jpg.jpg
_MARKET = re.compile(rf"(-1|\d+)_c(\d+)s\d+(?:_\d+)+{_END}")
_DUKE = re.compile(rf"(\d+)_c(\d+)_f?\d+{_END}")
# MSMT17's own names; or those of copies in Market-1501's layout, but not DukeMTMC-reID's
_MSMT17 = re.compile(rf"(?:(\d+)_\d+_(\d+)_|(\d+)_c(\d+)(?:s\d+)?_(?!f\d))[\w-]+{_END}")
NAMES = {  # the pattern of a set's file names, and an example: identity and camera
    "market1501": (_MARKET, "0002_c1s1_000451_03.jpg"),
    "dukemtmc": (_DUKE, "0001_c2_f0046182.jpg"),
    "msmt17": (_MSMT17, "0000_000_01_0303morning_0015_0.jpg"),
    "synthetic": (_MARKET, "0002_c1s1_000451_03.jpg"),
}


def open_data(config: DataConfig, root: str | Path) -> Dataset:
    """Reads the set that `config` names; the synthetic one is rendered if it is not there. Raises as `open_dataset`."""
    if config.name == "synthetic" and not (Path(root) / MARKET_FOLDERS["train"]).is_dir():
        from .synthetic.build import build  # rendering needs the optional package anny

        build(root, config.size, config.seed)
    return open_dataset(config.name, root, size=config.size, seed=config.seed)


def open_dataset(name: str, root: str | Path = "data", *, size: str = "demo", seed: int = 0) -> Dataset:
    """Reads a set.

    Args:
        name: "market1501", "dukemtmc", "msmt17" or "synthetic".
        root: the folder that holds the set's folder, or the set's folder itself.
        size, seed: which synthetic set, in `<root>/synthetic/<size>-<seed>/`.

    Raises:
        FileNotFoundError: no such folder (with what is there and the layout that is expected), or no such image.
        ValueError: an unknown name, a file name that is not like the set's, an image listed twice, an empty split.
    """
    one_of("name", name, NAMES)
    root = Path(root)
    folder, version = _find_synthetic(root, size, seed) if name == "synthetic" else (_find(name, root), "")
    if name == "msmt17":
        version = _msmt17_version(folder)
        print(f"MSMT17 {version or 'of unknown version'} in {folder}", file=sys.stderr)
    if _is_market_layout(folder):
        splits = {split: list(_read_folder(name, folder / sub)) for split, sub in MARKET_FOLDERS.items()}
    else:
        splits = _read_msmt17(folder)
    for split, records in splits.items():
        if not records:
            raise ValueError(f"{folder}: no image of {split} in {name}; expected names like {NAMES[name][1]}")
        published = PUBLISHED[name][split].images if name in PUBLISHED else len(records)
        if len(records) != published:
            found = f"{split} has {len(records):,} images; {name} as published has {published:,}"
            warnings.warn(f"{folder}: {found}. Is the set complete?", stacklevel=2)
    labels = {identity: label for label, identity in enumerate(sorted({r.identity for r in splits["train"]}))}
    splits["train"] = [record._replace(identity=labels[record.identity]) for record in splits["train"]]
    return Dataset(name, version, folder, **splits)


def with_version(data: DataConfig, root: str | Path) -> DataConfig:
    """`data` with its version, if it has none: the renderer's, or that of the MSMT17 under `root` ("" if unknown)."""
    if data.version or data.name not in ("synthetic", "msmt17"):
        return data
    try:
        version = f"v{RENDERER}" if data.name == "synthetic" else _msmt17_version(_find(data.name, Path(root)))
    except (OSError, ValueError):  # `open_data` will say it
        return data
    return replace(data, version=version)


def count(records: list[Record]) -> Counts:
    """Identities, images and cameras of a split."""
    return Counts(len({r.identity for r in records}), len(records), len({r.camera for r in records}))


def _find_synthetic(root: Path, size: str, seed: int) -> tuple[Path, str]:
    """The folder of a synthetic set, and its version. `root` may be the folder itself, with or without a manifest."""
    folder = root if _is_market_layout(root) else root / "synthetic" / f"{size}-{seed}"
    manifest = folder / "manifest.json"
    if folder != root and not manifest.is_file():
        command = f"python -m fusionreid data synthetic --size {size} --seed {seed} --root {root}"
        raise FileNotFoundError(f"{manifest}: the synthetic set is not there or not finished; make it with: {command}")
    about = read_json(manifest) if manifest.is_file() else {}
    known = {"size", "seed", "version"} <= set(about)
    return folder, f"{about['size']}-{about['seed']}, v{about['version']}" if known else folder.resolve().name


def _find(name: str, root: Path) -> Path:
    """The folder that has the set's layout: `root`, or one called like the set below it, up to three deep."""
    found, level = {}, [root]
    for _ in range(4):
        for folder in level:
            if _is_market_layout(folder) or name == "msmt17" and any(folder.glob("list_*.txt")):
                found.setdefault(folder.resolve(), folder)  # a link to a folder that was found does not count
        level = [sub for folder in level for sub in _folders_named(name, folder)]
    if not found:
        there = "\n".join(f"There is in {folder}: {_listing(folder)}" for folder in [root, *_folders_named(name, root)])
        layout = f"bounding_box_train/{NAMES[name][1]} ..., query/..., bounding_box_test/..."
        if name == "msmt17":
            layout = f"train/0000/{NAMES[name][1]} ..., test/... (V2: mask_train_v2/, mask_test_v2/), list_*.txt"
        raise FileNotFoundError(
            f"{name}: no folder of it. Looked in {root}, and in folders below it called like the set "
            f"({root / name}, ...).\n{there}\nExpected in one of these folders: {layout}"
        )
    first, *others = found.values()
    if others:
        message = f"{name} lies in more than one folder; {first} is read, not {', '.join(map(str, others))}"
        warnings.warn(f"{message}. Give its folder as root to choose.", stacklevel=3)
    return first


def _folders_named(name: str, folder: Path) -> list[Path]:
    """The folders in `folder` whose names begin with the set's name, whatever their case and punctuation."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [path for path in paths if path.is_dir() and _letters(path).startswith(name)]


def _letters(path: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _is_market_layout(folder: Path) -> bool:
    return all((folder / sub).is_dir() for sub in MARKET_FOLDERS.values())


def _listing(folder: Path) -> str:
    """The first names in a folder, links that lead nowhere marked."""
    if not folder.is_dir():
        return f"nothing, as there is no folder {folder.resolve()}"
    paths = sorted(folder.iterdir(), key=lambda path: (path.exists(), path))  # such links first
    names = [path.name if path.exists() else f"{path.name} (a link to nowhere: {os.readlink(path)})" for path in paths]
    return ", ".join(names[:12] + ["..."] * (len(names) > 12)) or "nothing"


def _read_folder(name: str, folder: Path) -> Iterator[Record]:
    """The records of one folder, by name; what is not an image (Thumbs.db, ._0002.jpg) is passed over."""
    for file in sorted(os.listdir(folder)):
        if file.lower().endswith((".jpg", ".jpeg", ".png", ".bmp")) and not file.startswith("."):
            record = _parse(name, folder / file)
            if record.identity != -1:  # Market-1501's junk; its distractors (0) stay
                yield record


def _parse(name: str, path: Path) -> Record:
    """The record of a file, from its name; there cameras count from 1."""
    pattern, example = NAMES[name]
    match = pattern.match(path.name)
    identity, camera = (int(group) for group in match.groups() if group) if match else (0, 0)
    if camera < 1:
        raise ValueError(f"{path}: expected a name like {example} (identity, and camera from 1), of {name}")
    return Record(path, identity, camera - 1)


def _msmt17_version(folder: Path) -> str:
    """V1 has the folders train/ and test/, V2 (blurred faces) mask_train_v2/ and mask_test_v2/; "" if neither."""
    match = re.search(r"v([12])$", _letters(folder.resolve()))
    named = f"V{match[1]}" if match else ""
    found = [version for version, (train, _) in MSMT17_FOLDERS.items() if (folder / train).is_dir()]
    if _is_market_layout(folder) or not found:
        return named
    if len(found) > 1:
        raise ValueError(f"{folder}: holds both train/ (V1) and mask_train_v2/ (V2); move one to a folder of its own")
    if named in ("", found[0]):
        return found[0]
    warnings.warn(f"{folder}: its name says {named}, its folders say {found[0]}; it is taken as V2", stacklevel=3)
    return "V2"


def _read_msmt17(folder: Path) -> dict[str, list[Record]]:
    """The records of each split, from the lists; a line is `0000/0000_000_01_0303morning_0015_0.jpg 0`."""
    train, test = MSMT17_FOLDERS["V2" if (folder / "mask_train_v2").is_dir() else "V1"]
    splits, listed = {"train": [], "query": [], "gallery": []}, {}
    for key, split in MSMT17_LISTS.items():
        file, images = folder / f"list_{key}.txt", folder / (train if split == "train" else test)
        for needed in (file, images):
            if not needed.exists():
                raise FileNotFoundError(f"{needed}: not there, and MSMT17 needs it; there is: {_listing(folder)}")
        # With or without a byte order mark; what is not UTF-8 is shown as such in the error of its line.
        for number, line in enumerate(file.read_text("utf-8-sig", errors="replace").splitlines(), 1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            name, *identity = line.strip().rsplit(maxsplit=1)
            if not identity or not identity[0].isdigit():
                raise ValueError(f"{place}: expected '<image> <identity>', found {line!r}")
            path = images / name
            if path in listed:
                raise ValueError(f"{place}: {path} is listed twice, first in {listed[path]}")
            if not path.is_file():
                raise FileNotFoundError(f"{path}: listed in {place}, and not there")
            listed[path] = place
            splits[split].append(_parse("msmt17", path)._replace(identity=int(identity[0])))
    return splits
