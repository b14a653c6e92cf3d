"""Readers of Market-1501, DukeMTMC-reID, MSMT17 (V1 and V2) and the synthetic set (Sec. IV.A).

Each set is read in the layout that it is distributed in, from whatever folder it was unpacked to: `root` itself, or
a folder below it whose name says the set's (`market1501`, `Market-1501-v15.09.15`, `dukemtmc-reid/DukeMTMC-reID`,
`msmt17/MSMT17_V1`, ...). Cameras count from 0 and are never renumbered split by split.
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

RENDERER = 3  # version of the synthetic people: raised whenever the same seed gives other pictures


class Record(NamedTuple):
    """One image: its file, whom it shows and which camera took it (from 0)."""

    path: Path
    identity: int
    camera: int


@dataclass(frozen=True)
class Dataset:
    """A re-identification set. Identities of `train` are 0 to n - 1; those of the other splits are as in the files.

    Attributes:
        version: "V1" or "V2" of MSMT17 ("" where its folder does not tell), size and seed of the synthetic set
            ("demo-0"), else "".
        root: the folder that was read.
    """

    name: str
    version: str
    root: Path
    train: list[Record]
    query: list[Record]
    gallery: list[Record]

    @property
    def splits(self) -> dict[str, list[Record]]:
        """The three lists by name."""
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
        return f"{' '.join(filter(None, [self.name, self.version]))} in {self.root}: {counts}"


class CountWarning(UserWarning):
    """A split has not as many images as published."""


class Counts(NamedTuple):
    """What a split holds."""

    identities: int
    images: int
    cameras: int


# Identities of a gallery include the distractors' (Market-1501: identity 0; DukeMTMC-reID: 408 people).
PUBLISHED = {
    "market1501": {"train": Counts(751, 12936, 6), "query": Counts(750, 3368, 6), "gallery": Counts(751, 15913, 6)},
    "dukemtmc": {"train": Counts(702, 16522, 8), "query": Counts(702, 2228, 8), "gallery": Counts(1110, 17661, 8)},
    "msmt17": {"train": Counts(1041, 32621, 15), "query": Counts(3060, 11659, 15), "gallery": Counts(3060, 82161, 15)},
}
FOLDERS = {  # as code bases and archives name them; found below `root`, and one inside another
    "market1501": ("market1501", "Market-1501-v15.09.15", "Market-1501"),
    "dukemtmc": ("dukemtmc", "dukemtmcreid", "dukemtmc-reid", "DukeMTMC-reID"),
    "msmt17": ("msmt17", "MSMT17", "MSMT17_V1", "MSMT17_V2"),
}
MARKET_SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_SPLITS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
MSMT17_LISTS = {
    "train": ("list_train.txt", "list_val.txt"),
    "query": ("list_query.txt",),
    "gallery": ("list_gallery.txt",),
}
IMAGES = (".jpg", ".jpeg", ".png", ".bmp")

_END = r"(?i:\.jpe?g|\.png|\.bmp)+$"  # some copies of Market-1501 have .jpg.jpg
_MARKET = re.compile(rf"(-1|\d+)_c(\d+)s\d+(?:_\d+)+{_END}")  # 0002_c1s1_000451_03.jpg
_DUKE = re.compile(rf"(\d+)_c(\d+)_f?\d+{_END}")  # 0001_c2_f0046182.jpg
_MSMT17 = re.compile(r"(\d+)_\d+_(\d+)_")  # 0000_000_01_0303morning_0015_0.jpg
# 0000_c1_0002.jpg, not DukeMTMC-reID's 0001_c2_f0046182.jpg; or MSMT17's own names
_MSMT17_AS_MARKET = re.compile(rf"(?:(\d+)_c(\d+)(?:s\d+)?_(?!f\d)|(\d+)_\d+_(\d+)_)[\w-]+{_END}")
_EXAMPLE = {
    "market1501": "0002_c1s1_000451_03.jpg",
    "synthetic": "0002_c1s1_000451_03.jpg",
    "dukemtmc": "0001_c2_f0046182.jpg",
    "msmt17": "0000_000_01_0303morning_0015_0.jpg",
}
_LAYOUT = {
    "market": "  bounding_box_train/{example} ...\n  query/...\n  bounding_box_test/...",
    "msmt17": "  train/0000/{example} ...   (V2: mask_train_v2/)\n  test/0000/...   (V2: mask_test_v2/)\n"
    "  list_train.txt  list_val.txt  list_query.txt  list_gallery.txt",
}


def open_dataset(name: str, root: str | Path = "data", *, size: str = "demo", seed: int = 0) -> Dataset:
    """Reads a set.

    Args:
        name: "market1501", "dukemtmc", "msmt17" or "synthetic".
        root: the folder that holds the set's folder, or the set's folder itself.
        size, seed: which synthetic set, in `<root>/synthetic/<size>-<seed>/`.

    Raises:
        FileNotFoundError: no such folder (what was looked for, what is there, how it should look), or a listed
            image that is not there.
        ValueError: an unknown name, a file name that does not parse, an image listed twice, an empty split.
    """
    one_of("name", name, [*PUBLISHED, "synthetic"])
    root = Path(root)
    if name == "synthetic":
        return _open_synthetic(root, size, seed)
    folder = _find(name, root)
    version = _msmt17_version(folder) if name == "msmt17" else ""
    if name == "msmt17" and not _is_market_layout(folder):
        splits = _read_msmt17(folder)
    else:
        pattern = {"market1501": _MARKET, "dukemtmc": _DUKE, "msmt17": _MSMT17_AS_MARKET}[name]
        splits = {split: list(_read_folder(name, folder / sub, pattern)) for split, sub in MARKET_SPLITS.items()}
    if name == "msmt17":
        print(f"MSMT17 {version or 'of unknown version'} in {folder}", file=sys.stderr)
    dataset = _assemble(name, version, folder, splits)
    for split, published in PUBLISHED[name].items():
        if len(dataset.splits[split]) != published.images:
            warnings.warn(
                f"{folder}: {split} has {len(dataset.splits[split]):,} images; {name} as published has "
                f"{published.images:,}. Is the set complete?",
                CountWarning,
                stacklevel=2,
            )
    return dataset


def count(records: list[Record]) -> Counts:
    """Identities, images and cameras of a split."""
    return Counts(len({r.identity for r in records}), len(records), len({r.camera for r in records}))


def _assemble(name: str, version: str, folder: Path, splits: dict[str, list[Record]]) -> Dataset:
    """Numbers the training identities from 0; no split may be empty."""
    for split, records in splits.items():
        if not records:
            raise ValueError(f"{folder}: no image of {split} in {name}; expected names like {_EXAMPLE[name]}")
    labels = {identity: label for label, identity in enumerate(sorted({r.identity for r in splits["train"]}))}
    train = [record._replace(identity=labels[record.identity]) for record in splits["train"]]
    return Dataset(name, version, folder, train, splits["query"], splits["gallery"])


def _open_synthetic(root: Path, size: str, seed: int) -> Dataset:
    folder = root if (root / MARKET_SPLITS["train"]).is_dir() else root / "synthetic" / f"{size}-{seed}"
    manifest = folder / "manifest.json"
    if not _is_market_layout(folder) or (folder != root and not manifest.is_file()):
        state = "is not finished (no manifest.json)" if folder.is_dir() else "is not there"
        raise FileNotFoundError(
            f"The synthetic set {folder} {state}; "
            "make it with: python -m fusionreid.data synthetic "
            f"--size {size} --seed {seed} --root {root}"
        )
    about = read_json(manifest) if manifest.is_file() else {}
    known = {"size", "seed", "version"} <= set(about)
    version = f"{about['size']}-{about['seed']}, v{about['version']}" if known else folder.resolve().name
    splits = {split: list(_read_folder("synthetic", folder / sub, _MARKET)) for split, sub in MARKET_SPLITS.items()}
    return _assemble("synthetic", version, folder, splits)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _is_market_layout(folder: Path) -> bool:
    return all((folder / sub).is_dir() for sub in MARKET_SPLITS.values())


def _is_layout(name: str, folder: Path) -> bool:
    if name == "msmt17" and any((folder / train).is_dir() for train, _ in MSMT17_SPLITS.values()):
        return any((folder / file).is_file() for files in MSMT17_LISTS.values() for file in files)
    return _is_market_layout(folder)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find(name: str, root: Path) -> Path:
    """The folder that has the set's layout: `root`, or one called like the set below it, up to three deep."""
    found, level = [], [root]
    for _ in range(4):
        found += [folder for folder in level if folder.is_dir() and _is_layout(name, folder)]
        level = [
            folder / sub
            for folder in level
            if folder.is_dir()
            for sub in _subfolders(folder)
            if _letters(sub).startswith(name)
        ]
    places = [folder.resolve() for folder in found]  # a link to another one does not count
    found = [folder for index, folder in enumerate(found) if places[index] not in places[:index]]
    if len(found) > 1:
        warnings.warn(
            f"{name} lies in more than one folder; {found[0]} is read, not "
            f"{', '.join(map(str, found[1:]))}. Give its folder as root to choose.",
            stacklevel=3,
        )
    if found:
        return found[0]
    layout = _LAYOUT["msmt17" if name == "msmt17" else "market"].format(example=_EXAMPLE[name])
    looked = ", ".join(str(root / folder) for folder in FOLDERS[name])
    raise FileNotFoundError(
        f"{name}: no folder of it. Looked in {root} and in folders below it called like the set "
        f"({looked}, or one in another).\n{_what_is_there(name, root)}\n"
        f"Expected in one of these folders:\n{layout}"
    )


def _what_is_there(name: str, root: Path) -> str:
    if not root.is_dir():
        link = f" (the link {root} leads there)" if root.is_symlink() else ""
        return f"There is: no folder {root.resolve()}{link}."
    lines = []
    close = [root / sub for sub in _subfolders(root) if _letters(sub).startswith(name)]
    for folder in [root, *close]:
        names = sorted(os.listdir(folder))
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12:,} more" if len(names) > 12 else "")
        lines.append(f"There is in {folder}: {shown or 'nothing'}.{_broken_links(folder)}")
    return "\n".join(lines)


def _broken_links(folder: Path) -> str:
    """A sentence about the links in a folder that lead nowhere, if there are any."""
    broken = sorted(path for path in folder.iterdir() if path.is_symlink() and not os.path.exists(path))
    shown = ", ".join(f"{path.name} (to {os.readlink(path)})" for path in broken[:12])
    return f" These links lead nowhere: {shown}{' and more' if len(broken) > 12 else ''}." if broken else ""


def _read_folder(name: str, folder: Path, pattern: re.Pattern) -> Iterator[Record]:
    """The records of one folder, by name; what is not an image (Thumbs.db, ._0002.jpg) is passed over."""
    with os.scandir(folder) as entries:  # names only: no stat of 126,000 files
        names = sorted(e.name for e in entries if e.name.lower().endswith(IMAGES) and not e.name.startswith("."))
    stems: dict[str, str] = {}
    for file in names:
        stem = re.sub(_END, "", file)
        if stem in stems:
            raise ValueError(f"{folder / file}: this image is there twice, the other is {stems[stem]}")
        stems[stem] = file
        path = f"{folder}{os.sep}{file}"
        identity, camera = _parse(pattern, path, name)
        if identity != -1:  # Market-1501's junk; its distractors (0) stay
            yield Record(Path(path), identity, camera)


def _parse(pattern: re.Pattern, path: str, name: str) -> tuple[int, int]:
    """Identity and camera, from 0, of a file name."""
    match = pattern.match(os.path.basename(path))
    groups = [int(group) for group in match.groups() if group is not None] if match else []
    if len(groups) != 2 or groups[1] < 1:
        example = _EXAMPLE[name] + (" or 0000_c1_0002.jpg" if pattern is _MSMT17_AS_MARKET else "")
        raise ValueError(f"{path}: expected a name like {example} (identity, and camera from 1), of {name}")
    return groups[0], groups[1] - 1


def with_version(data: DataConfig, root: str | Path) -> DataConfig:
    """`data` with its version, if it has none: the renderer's, or that of the MSMT17 under `root` ("" if none is)."""
    if data.version or data.name in ("market1501", "dukemtmc"):
        return data
    if data.name == "synthetic":
        return replace(data, version=f"v{RENDERER}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said when it is read
        try:
            return replace(data, version=_msmt17_version(_find(data.name, Path(root))))
        except (OSError, ValueError):
            return data


def _msmt17_version(folder: Path) -> str:
    """V1 has the folders train/ and test/, V2 (blurred faces) mask_train_v2/ and mask_test_v2/; "" if neither."""
    match = re.search(r"v([12])$", _letters(folder.resolve().name))
    named = f"V{match[1]}" if match else ""
    found = [version for version, (train, _) in MSMT17_SPLITS.items() if (folder / train).is_dir()]
    if _is_market_layout(folder) or not found:
        return named
    if len(found) > 1:
        raise ValueError(
            f"{folder}: holds both train/ (V1) and mask_train_v2/ (V2), whose results differ by points of "
            "mAP; move one version to a folder of its own"
        )
    if named and named != found[0]:
        warnings.warn(
            f"{folder}: its name says {named}, its folder {MSMT17_SPLITS[found[0]][0]}/ says {found[0]}; taken as V2, "
            "whose faces are blurred",
            stacklevel=3,
        )
        return "V2"
    return found[0]


def _read_msmt17(folder: Path) -> dict[str, list[Record]]:
    train, test = next(names for names in MSMT17_SPLITS.values() if (folder / names[0]).is_dir())
    listed, present = {}, {}
    splits = {}
    for split, files in MSMT17_LISTS.items():
        images = folder / (train if split == "train" else test)
        splits[split] = [record for file in files for record in _read_list(folder / file, images, listed, present)]
    return splits


def _read_list(file: Path, images: Path, listed: dict[str, str], present: dict[str, set[str]]) -> Iterator[Record]:
    """The records of one list; a line is `0000/0000_000_01_0303morning_0015_0.jpg 0`."""
    for needed, kind in ((file, "list file"), (images, "folder of images")):
        if not needed.exists():
            there = ", ".join(sorted(os.listdir(file.parent)))
            raise FileNotFoundError(
                f"{needed}: no such {kind} of MSMT17; there is: {there}.{_broken_links(file.parent)}"
            )
    # with or without a byte order mark; what is not UTF-8 is shown as such in the error of its line
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        name, *label = line.strip().rsplit(maxsplit=1)
        if not label or not label[0].isdigit():
            raise ValueError(f"{file}, line {number}: expected '<image> <identity>', found {line!r}")
        path = f"{images}{os.sep}{name}"  # as text: hashing and splitting Paths takes most of the time
        if path in listed:
            raise ValueError(f"{file}, line {number}: {path} is listed twice, first in {listed[path]}")
        listed[path] = f"{file.name}, line {number}"
        parent, _, base = path.rpartition("/")
        if parent not in present:  # one listing a folder instead of one stat an image
            present[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if base not in present[parent]:
            raise FileNotFoundError(f"{path}: listed in {file}, line {number}, and not there")
        yield Record(Path(path), int(label[0]), _parse(_MSMT17, path, "msmt17")[1])
