"""Folders and names of files: where a set lies, in which layout, and the records of its splits."""

import csv
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Record(NamedTuple):
    """One image: its file, whom it shows, and which camera took it (from 0; -1: not known)."""

    path: Path
    identity: int
    camera: int


Splits = dict[str, list[Record]]  # by "train", "query" and "gallery"
# What a list of images says, line by line: its place in the file, the split and the record.
Lines = Iterator[tuple[str, str, Record]]

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MSMT17_FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
# The split of each list: list_train.txt, ...
MSMT17_LISTS = {"train": "train", "val": "train", "query": "query", "gallery": "gallery"}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")

_END = r"(?i:\.jpe?g|\.png|\.bmp)+$"  # some copies of Market-1501 have .jpg.jpg
_MARKET = re.compile(rf"(-1|\d+)_c(\d+)s\d+(?:_\d+)+{_END}")
_DUKE = re.compile(rf"(\d+)_c(\d+)_f?\d+{_END}")
# MSMT17's own names; or those of copies in Market-1501's layout, but not DukeMTMC-reID's
_MSMT17 = re.compile(rf"(?:(\d+)_\d+_(\d+)_|(\d+)_c(\d+)(?:s\d+)?_(?!f\d))[\w-]+{_END}")
# The pattern of a set's file names (identity, camera), and an example.
NAMES = {
    "market1501": (_MARKET, "0002_c1s1_000451_03.jpg"),
    "dukemtmc": (_DUKE, "0001_c2_f0046182.jpg"),
    "msmt17": (_MSMT17, "0000_000_01_0303morning_0015_0.jpg"),
    "synthetic": (_MARKET, "0002_c1s1_000451_03.jpg"),
}
REAL = NAMES.keys() - {"synthetic"}
COLUMNS = ("path", "identity", "split")  # of a CSV file, which may have "camera" too
MOST = {"identity": 2**63 - 1, "camera": 9999}  # a camera more is a row more of the model


def find_own(name: str, root: Path) -> Path | None:
    """The folder or the CSV file of a set of one's own; None if there is none.

    It is `root / name`, `root / name.csv`, or `root` itself. A folder has Market-1501's layout.
    """
    for path in (root / name, root / f"{name}.csv", root):
        if is_market_layout(path) or (path.suffix == ".csv" and path.is_file()):
            return path
    return None


def check_name(name: str, root: Path) -> None:
    """Raises ValueError, saying what is known, for an unknown name that is no set of one's own."""
    if name in NAMES or find_own(name, root):
        return
    raise ValueError(
        f"data set {name!r} is not known; it is one of: {', '.join(map(repr, NAMES))}; or a set of "
        f"your own: a folder {root / name} with {', '.join(MARKET_FOLDERS.values())}, or a file "
        f"{root / name.removesuffix('.csv')}.csv with the columns {', '.join(COLUMNS)} and, where "
        f"it is known, camera. There is in {root}: {_listing(root)}"
    )


def find(name: str, root: Path) -> Path:
    """The folder of a set: `root`, or one called like the set below it, up to three deep.

    Warns if there are several. Raises FileNotFoundError, with what is there and what is expected;
    ValueError as `check_name`.
    """
    check_name(name, root)
    if name not in NAMES:
        return find_own(name, root)
    matches = {}  # by the folder that a link leads to: a folder and a link to it are one
    level = [root]
    for _ in range(4):
        for folder in level:
            if is_market_layout(folder) or (name == "msmt17" and any(folder.glob("list_*.txt"))):
                matches.setdefault(folder.resolve(), folder)
        level = [below for folder in level for below in _folders_named(name, folder)]
    if not matches:
        raise FileNotFoundError(_missing(name, root))
    first, *others = matches.values()
    if others:
        warnings.warn(
            f"{name} lies in more than one folder; {first} is read, not "
            f"{', '.join(map(str, others))}. Give its folder as root to choose.",
            stacklevel=3,
        )
    return first


def read(name: str, folder: Path) -> Splits:
    """The records of each split; identities are as in the files.

    Raises ValueError: a name that is not like the set's, a wrong line of a CSV file, an image
    listed twice, an empty split; FileNotFoundError: a list of MSMT17, or a listed image, is
    missing.
    """
    if folder.is_file():
        try:
            splits = _listed(_csv_lines(folder))
        except csv.Error as error:
            raise ValueError(f"{folder}: expected a CSV file, found no such ({error})") from error
    elif is_market_layout(folder):
        splits = {split: _read_folder(name, folder / sub) for split, sub in MARKET_FOLDERS.items()}
    else:
        splits = _listed(_msmt17_lines(folder))
    for split, records in splits.items():
        # Nobody trains on the synthetic probe, nor on a set of one's own that only tests.
        if not records and (split != "train" or name in REAL):
            expected = f"names like {_names(name)[1]}"
            if folder.is_file():
                expected = f"lines of the split {split}"
            raise ValueError(f"{folder}: no image of {split} in {name}; expected {expected}")
    return splits


def is_market_layout(folder: Path) -> bool:
    """Whether a folder has Market-1501's three folders."""
    return all((folder / sub).is_dir() for sub in MARKET_FOLDERS.values())


def msmt17_version(folder: Path) -> str:
    """The edition: "V1" has train/ and test/, "V2" (blurred faces) mask_train_v2/, mask_test_v2/.

    A copy in Market-1501's layout has the edition in its name, or "".
    """
    match = re.search(r"v[12]$", _letters(folder.resolve()))
    named = match[0].upper() if match else ""
    if is_market_layout(folder):
        return named
    version = _msmt17_folders(folder)
    if named and named != version:
        # Blurred images may lie in V1's folders, but V1's images never in V2's.
        warnings.warn(
            f"{folder}: its name says {named}, its folders say {version}; it is taken as V2",
            stacklevel=3,
        )
        return "V2"
    return version


def _names(name: str) -> tuple[re.Pattern, str]:
    """The pattern of a set's file names, and an example."""
    return NAMES.get(name, NAMES["market1501"])


def _missing(name: str, root: Path) -> str:
    """The message of a set that is not there."""
    example = NAMES[name][1]
    if name == "msmt17":
        layout = (
            f"train/0000/{example} ..., test/... (V2: mask_train_v2/, mask_test_v2/), list_*.txt"
        )
    else:
        layout = f"bounding_box_train/{example} ..., query/..., bounding_box_test/..."
    lines = [
        f"{name}: no folder of it. Looked in {root}, and in folders below it called like the set "
        f"({root / name}, ...)."
    ]
    for folder in [root, *_folders_named(name, root)]:
        lines.append(f"There is in {folder}: {_listing(folder)}")
    lines.append(f"Expected in one of these folders: {layout}")
    return "\n".join(lines)


def _folders_named(name: str, folder: Path) -> list[Path]:
    """The folders inside whose names begin with the set's, whatever their case and punctuation."""
    paths = sorted(folder.glob("*"))  # none where there is no such folder
    return [path for path in paths if path.is_dir() and _letters(path).startswith(name)]


def _letters(path: Path) -> str:
    return re.sub(r"[^a-z0-9]", "", path.name.lower())


def _listing(folder: Path) -> str:
    """The first names in a folder. A link that leads nowhere says so, and comes first."""
    if not folder.is_dir():
        return f"nothing, as there is no folder {os.path.realpath(folder)}"
    names = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.exists(), path)):
        lost = "" if path.exists() else f" (a link to nowhere: {os.readlink(path)})"
        names.append(path.name + lost)
    if len(names) > 12:
        names[12:] = ["..."]
    return ", ".join(names) or "nothing"


def _read_folder(name: str, folder: Path) -> list[Record]:
    """The records of one folder. What is not an image (Thumbs.db, ._0002.jpg) is passed over."""
    records = []
    for file in sorted(os.listdir(folder)):
        if file.lower().endswith(SUFFIXES) and not file.startswith("."):
            record = _parse(name, folder / file)
            if record.identity != -1:  # Market-1501's junk; its distractors (0) stay
                records.append(record)
    return records


def _parse(name: str, path: Path) -> Record:
    """The record of a file, from its name; there cameras count from 1."""
    pattern, example = _names(name)
    match = pattern.match(path.name)
    if match:
        identity, camera = (int(group) for group in match.groups() if group)
        if camera > 0:
            return Record(path, identity, camera - 1)
    raise ValueError(
        f"{path}: expected a name like {example} (identity, and camera from 1), of {name}"
    )


def _msmt17_folders(folder: Path) -> str:
    """Whose folders are there: "V1" or "V2". Raises ValueError for both."""
    blurred = (folder / "mask_train_v2").is_dir()
    if blurred and (folder / "train").is_dir():
        raise ValueError(
            f"{folder}: holds both train/ (V1) and mask_train_v2/ (V2); "
            "move one to a folder of its own"
        )
    return "V2" if blurred else "V1"


def _listed(lines: Lines) -> Splits:
    """The records of each split."""
    splits = {split: [] for split in MARKET_FOLDERS}
    places = {}  # of each image
    for place, split, record in lines:
        path = record.path
        if not path.is_file():
            raise FileNotFoundError(f"{place}: no such file: {path}")
        if path in places:
            raise ValueError(f"{place}: {path} is listed twice, first in {places[path]}")
        places[path] = place
        splits[split].append(record)
    return splits


def _msmt17_lines(folder: Path) -> Lines:
    """The lines of the lists.

    A line is `0000/0000_000_01_0303morning_0015_0.jpg 0`: an image and its identity.
    """
    train, test = MSMT17_FOLDERS[_msmt17_folders(folder)]
    for key, split in MSMT17_LISTS.items():
        file = folder / f"list_{key}.txt"
        images = folder / (train if split == "train" else test)
        if not file.exists():
            raise FileNotFoundError(
                f"{file}: not there, and MSMT17 needs it; there is: {_listing(folder)}"
            )
        # With or without a byte order mark. What is not UTF-8 is shown in the error of its line.
        lines = file.read_text("utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            match = re.fullmatch(r"\s*(.+?)\s+(\d+)\s*", line)
            if not match:
                raise ValueError(f"{place}: expected '<image> <identity>', found {line!r}")
            record = _parse("msmt17", images / match[1])
            yield place, split, record._replace(identity=int(match[2]))


def _csv_lines(file: Path) -> Lines:
    """A line for each image; paths are from the file's folder."""
    # With or without a byte order mark. What is not UTF-8 is shown in the error of its line.
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as opened:
        rows = csv.DictReader(opened)
        columns = rows.fieldnames or []
        if not {*COLUMNS} <= {*columns}:
            raise ValueError(
                f"{file}, line 1: expected the columns {', '.join(COLUMNS)} and, where it is "
                f"known, camera, found {', '.join(columns) or 'nothing'}"
            )
        for row in rows:
            place = f"{file}, line {rows.line_num}"
            if None in row or None in row.values():
                raise ValueError(f"{place}: expected {len(columns)} values, as in line 1")
            for column, most in MOST.items():
                value = row.setdefault(column, "-1")
                fits = value.isdecimal() and len(value) < 20 and int(value) <= most
                if column in columns and not fits:
                    raise ValueError(
                        f"{place}, column {column}: expected a whole number from 0 to {most}, "
                        f"found {value!r}"
                    )
            split = row["split"]
            if split not in MARKET_FOLDERS:
                raise ValueError(
                    f"{place}, column split: expected {', '.join(MARKET_FOLDERS)}, found {split!r}"
                )
            path = file.parent / row["path"]
            record = Record(path, int(row["identity"]), int(row["camera"]))
            yield f"{place}, column path", split, record
