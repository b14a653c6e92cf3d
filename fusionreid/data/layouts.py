"""Folders and names of files: where a set lies, in which layout, and the records of its splits."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """One image: its file, whom it shows, and which camera took it (from 0)."""

    path: Path
    identity: int
    camera: int


MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
MSMT17_LISTS = {
    "train": "train",
    "val": "train",
    "query": "query",
    "gallery": "gallery",
}  # list_train.txt: its split

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

Splits = dict[str, list[Record]]


def read(name: str, folder: Path) -> Splits:
    """The records of each split; identities are as in the files."""
    if is_market_layout(folder):
        splits = {
            split: list(_read_folder(name, folder / sub)) for split, sub in MARKET_FOLDERS.items()
        }
    else:
        splits = _read_msmt17(folder)
    for split, records in splits.items():
        if not records:
            raise ValueError(
                f"{folder}: no image of {split} in {name}; expected names like {NAMES[name][1]}"
            )
    return splits


def find(name: str, root: Path) -> Path:
    """The folder that has the set's layout: `root`, or one called like the set below it, up to three deep."""
    found, level = {}, [root]
    for _ in range(4):
        for folder in level:
            if is_market_layout(folder) or name == "msmt17" and any(folder.glob("list_*.txt")):
                found.setdefault(
                    folder.resolve(), folder
                )  # a link to a folder that was found does not count
        level = [sub for folder in level for sub in _folders_named(name, folder)]
    if not found:
        there = "\n".join(
            f"There is in {folder}: {_listing(folder)}"
            for folder in [root, *_folders_named(name, root)]
        )
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


def is_market_layout(folder: Path) -> bool:
    return all((folder / sub).is_dir() for sub in MARKET_FOLDERS.values())


def _listing(folder: Path) -> str:
    """The first names in a folder, links that lead nowhere marked."""
    if not folder.is_dir():
        return f"nothing, as {'it is a file' if folder.exists() else f'there is no folder {os.path.realpath(folder)}'}"
    paths = sorted(folder.iterdir(), key=lambda path: (path.exists(), path))  # such links first
    names = [
        path.name if path.exists() else f"{path.name} (a link to nowhere: {os.readlink(path)})"
        for path in paths
    ]
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
        raise ValueError(
            f"{path}: expected a name like {example} (identity, and camera from 1), of {name}"
        )
    return Record(path, identity, camera - 1)


def msmt17_version(folder: Path) -> str:
    """V1 has the folders train/ and test/, V2 (blurred faces) mask_train_v2/ and mask_test_v2/; "" if neither."""
    match = re.search(r"v([12])$", _letters(folder.resolve()))
    named = f"V{match[1]}" if match else ""
    found = [version for version, (train, _) in MSMT17_FOLDERS.items() if (folder / train).is_dir()]
    if is_market_layout(folder) or not found:
        return named
    if len(found) > 1:
        raise ValueError(
            f"{folder}: holds both train/ (V1) and mask_train_v2/ (V2); move one to a folder of its own"
        )
    if named in ("", found[0]):
        return found[0]
    warnings.warn(
        f"{folder}: its name says {named}, its folders say {found[0]}; it is taken as V2",
        stacklevel=3,
    )
    return "V2"


def _read_msmt17(folder: Path) -> dict[str, list[Record]]:
    """The records of each split, from the lists; a line is `0000/0000_000_01_0303morning_0015_0.jpg 0`."""
    train, test = MSMT17_FOLDERS["V2" if (folder / "mask_train_v2").is_dir() else "V1"]
    splits, listed = {"train": [], "query": [], "gallery": []}, {}
    for key, split in MSMT17_LISTS.items():
        file, images = folder / f"list_{key}.txt", folder / (train if split == "train" else test)
        for needed in (file, images):
            if not needed.exists():
                raise FileNotFoundError(
                    f"{needed}: not there, and MSMT17 needs it; there is: {_listing(folder)}"
                )
        # With or without a byte order mark; what is not UTF-8 is shown as such in the error of its line.
        for number, line in enumerate(
            file.read_text("utf-8-sig", errors="replace").splitlines(), 1
        ):
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
