"""Readers of Market-1501, DukeMTMC-reID, MSMT17 (V1 and V2), the synthetic set (Sec. IV.A) and sets
of one's own.

Each set is read in the layout that it is distributed in. Its folder is `root` itself, or a folder
below it whose name begins with the set's name (`market1501`, `Market-1501-v15.09.15`,
`dukemtmc-reid/DukeMTMC-reID`, `msmt17/MSMT17_V1`). Cameras count from 0 and are never renumbered
split by split.

A draw of a real set, size "demo", is a data set too: some of its people, chosen by a seed.

This file alone says what a set's version is. `DataConfig.version` names the files, whatever size
and seed: "v5" is the renderer of the synthetic set; "3f2a9c01" is the digest of a real set's files;
MSMT17 has its edition before it ("V1, 3f2a9c01"), a set without camera numbers "no cameras".
`Dataset.version` adds size and seed to what was rendered ("demo-0, v5") or drawn ("3f2a9c01,
demo-0").
"""

import hashlib
import os
import random
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..config import DataConfig
from ..files import read_json
from .layouts import (
    MARKET_FOLDERS,
    REAL,
    Record,
    Splits,
    check_name,
    find,
    is_market_layout,
    msmt17_version,
    read,
)
from .overlaps import overlaps
from .synthetic import RENDERER


@dataclass(frozen=True)
class Dataset:
    """A re-identification set.

    Identities of `train` are 0 to n - 1; those of the other splits are as in the files.
    """

    name: str
    version: str  # of the files, with the size and seed of a synthetic set or of a draw
    root: Path  # the folder that was read, or the CSV file
    train: list[Record]
    query: list[Record]
    gallery: list[Record]

    @property
    def splits(self) -> Splits:
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def num_identities(self) -> int:
        """Identities in `train`."""
        return 1 + max(record.identity for record in self.train)

    @property
    def num_cameras(self) -> int:
        """One more than the highest camera index of any split; 0 for a set without cameras."""
        return 1 + max(record.camera for split in self.splits.values() for record in split)

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {len(records):,}" for split, records in self.splits.items())
        return f"{self.name} {self.version} in {self.root}: {counts}"


# Identities, images and cameras of each split as published. Identities of a gallery include the
# distractors': identity 0 of Market-1501, 408 people of DukeMTMC-reID.
PUBLISHED = pd.read_csv(Path(__file__).with_name("published.csv"), index_col=["name", "split"])

# Identities of a draw of a real set, of those that train and of those that have queries.
DRAWN_TRAINING = 200
DRAWN_QUERIES = 150


def find_version(config: DataConfig, root: str | Path) -> str:
    """What `DataConfig.version` is for the files under `root`; "" where they are not there.

    A set that was not rendered is read for it: names, sizes and identities of all its images. So
    all draws of a set have one version. Raises ValueError for an unknown name that is no set of
    one's own.
    """
    root = Path(root)
    check_name(config.name, root)
    try:
        if config.name == "synthetic":
            if not is_market_layout(root):
                return f"v{RENDERER}"  # the files are rendered where they are missing
            return _synthetic_version(root)
        folder = find(config.name, root)
        return _digest(config.name, folder, read(config.name, folder))
    except (OSError, ValueError):  # `open_data` says what is wrong
        return ""


def open_data(config: DataConfig, root: str | Path) -> Dataset:
    """Reads the set that `config` names; the synthetic one is rendered if it is not there.

    Raises as `open_dataset` and `check_version`.
    """
    if config.name == "synthetic" and not is_market_layout(Path(root)):
        from .synthetic.build import build  # rendering needs the optional package anny

        build(root, config.size, config.seed)
    dataset = open_dataset(config.name, root, size=config.size, seed=config.seed)
    check_version(dataset, config)
    return dataset


def check_version(dataset: Dataset, config: DataConfig) -> None:
    """Raises ValueError for another set or version than `config` says.

    The results of its runs would be taken for others'.
    """
    expected = _full_version(config.name, config.version, config.size, config.seed)
    known = [expected]
    if config.name == "synthetic":  # the reader's own, without a manifest, have no size or seed
        known.append(config.version)
    if dataset.name != config.name or (config.version and dataset.version not in known):
        raise ValueError(
            f"{dataset.root}: expected {config.name} {expected}, "
            f"found {dataset.name} {dataset.version}: other files"
        )


def open_probe(root: str | Path, seed: int = 0, size: str = "probe") -> Dataset:
    """The pairs of people who differ in one cue (`evaluation.probe`), rendered where they miss.

    `seed` is that of the synthetic set whose cameras see them; `size` is "probe" or "probe-smoke".
    Nobody is in its training split.
    """
    from .synthetic.build import build  # rendering needs the optional package anny

    return open_dataset("synthetic", build(root, size, seed))


def open_dataset(
    name: str, root: str | Path = "data", *, size: str | None = None, seed: int = 0
) -> Dataset:
    """Reads "market1501", "dukemtmc", "msmt17", "synthetic", or a set of one's own by its name.

    Warns of counts that are not the published ones, of images in two splits and of people in
    training and test.

    Args:
        root: the folder that holds the set's folder or CSV file, or the set's folder itself.
        size, seed: which synthetic set (by default "demo"), or which draw of a real set: "demo" is
            a draw (see `draw_people`), every other size is the whole set, the default. A set of
            one's own is always whole.

    Raises FileNotFoundError: no such folder (with what is there and the layout that is expected),
    or no such image; ValueError: an unknown name, a file name that is not like the set's, a wrong
    line of a CSV file (named with its column), an image listed twice, an empty split, a synthetic
    set that is not the one of its manifest, fewer people than a draw needs.
    """
    root = Path(root)
    if name == "synthetic":
        folder = _find_synthetic(root, size or "demo", seed)
        splits = read(name, folder)
        version = _synthetic_version(folder, with_draw=True)
        _check_manifest(folder, splits)
    else:
        folder = find(name, root)
        splits = read(name, folder)
        version = _full_version(name, _digest(name, folder, splits), size, seed)
    if name == "msmt17":
        print(f"MSMT17 {version} in {folder}", file=sys.stderr)
    wrong = differences(name, splits)
    if wrong:
        warnings.warn(
            f"{folder}: not as published: {'; '.join(wrong)}. Is the set complete?", stacklevel=2
        )
    # MSMT17 counts people from 0 in training and in test.
    for fault in overlaps(splits, same_people=name != "msmt17"):
        warnings.warn(f"{folder}: {fault}", stacklevel=2)
    if name in REAL and size == "demo":
        splits = draw_people(splits, seed)
    splits["train"] = _renumbered(splits["train"])
    return Dataset(name, version, folder, **splits)


def draw_people(splits: Splits, seed: int) -> Splits:
    """A draw of a real set: 200 of its training identities and 150 of its query identities.

    One `random.Random(seed)` draws with `sample` from the sorted training identities, then from the
    sorted query identities. All images of these people stay, in their order. Distractors go, as
    they have no query. Seed 0 of Market-1501 has 3,391 training images, 684 queries and 2,624
    gallery images. Raises ValueError if there are fewer people.
    """
    trained = sorted({record.identity for record in splits["train"]})
    queried = sorted({record.identity for record in splits["query"]})
    if len(trained) < DRAWN_TRAINING or len(queried) < DRAWN_QUERIES:
        raise ValueError(
            f"a draw needs {DRAWN_TRAINING} identities of train and {DRAWN_QUERIES} of query, "
            f'found {len(trained)} and {len(queried)}; size="full" is the whole set'
        )
    chance = random.Random(seed)
    training = set(chance.sample(trained, DRAWN_TRAINING))
    test = set(chance.sample(queried, DRAWN_QUERIES))
    drawn = {}
    for split, people in {"train": training, "query": test, "gallery": test}.items():
        drawn[split] = [record for record in splits[split] if record.identity in people]
    return drawn


def count(splits: Splits) -> pd.DataFrame:
    """Identities, images and cameras of each split, a row each."""
    rows = {
        split: {
            "identities": len({record.identity for record in records}),
            "images": len(records),
            "cameras": len({record.camera for record in records} - {-1}),
        }
        for split, records in splits.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def differences(name: str, splits: Splits) -> list[str]:
    """Which numbers of a whole set are not the published ones, a line each."""
    if name not in PUBLISHED.index:
        return []
    published = PUBLISHED.loc[name]
    return [
        f"{split}: {kind} {number:,} (published: {published[kind][split]:,})"
        for (split, kind), number in count(splits).stack().items()
        if number != published[kind][split]
    ]


def table(dataset: Dataset) -> str:
    """What `count` gives, beside the published numbers where there are any, in aligned columns."""
    columns = [count(dataset.splits)]
    if _is_published(dataset):
        columns.append(PUBLISHED.loc[dataset.name].add_suffix(" (published)"))
    return pd.concat(columns, axis=1).map("{:,}".format).to_string()


def _is_published(dataset: Dataset) -> bool:
    """Whether there are published numbers of a set; not of a draw of it."""
    return dataset.name in PUBLISHED.index and ", demo-" not in dataset.version


def verdict(dataset: Dataset) -> str:
    """One line: which numbers are not the published ones; "" if none are published."""
    if not _is_published(dataset):
        return ""
    wrong = differences(dataset.name, dataset.splits)
    if wrong:
        return f"Not as published. {'; '.join(wrong)}."
    return "Complete: identities, images and cameras of each split are the published ones."


def _find_synthetic(root: Path, size: str, seed: int) -> Path:
    """The folder of a synthetic set; it may be `root` itself, with or without a manifest."""
    if is_market_layout(root):
        return root
    folder = root / "synthetic" / f"{size}-{seed}"
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise FileNotFoundError(
            f"{manifest}: the synthetic set is not there or not finished; make it with: "
            f"python -m fusionreid data synthetic --size {size} --seed {seed} --root {root}"
        )
    return folder


def _check_manifest(folder: Path, splits: Splits) -> None:
    """Raises ValueError if there are not as many images as the manifest says."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        counts = {sub: len(splits[split]) for split, sub in MARKET_FOLDERS.items()}
        expected = read_json(manifest).get("counts", counts)
        if expected != counts:
            raise ValueError(
                f"{manifest}: expected {expected} images, found {counts}; "
                "delete the folder, and it is rendered anew"
            )


def _synthetic_version(folder: Path, with_draw: bool = False) -> str:
    """The renderer's version, from the manifest; of pictures without a manifest their digest.

    `with_draw` adds size and seed to the renderer's version, as in `Dataset.version`.
    """
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        return _digest("synthetic", folder, read("synthetic", folder))
    about = read_json(manifest)
    if not isinstance(about, dict) or not {"size", "seed", "version"} <= about.keys():
        raise ValueError(f"{manifest}: expected size, seed and version, found {about!r:.80}")
    version = f"v{about['version']}"
    if with_draw:
        version = _full_version("synthetic", version, about["size"], about["seed"])
    return version


def _full_version(name: str, version: str, size: str | None, seed: int) -> str:
    """`Dataset.version`, from the version of the files."""
    if name == "synthetic":
        return f"{size}-{seed}, {version}"
    if name in REAL and size == "demo":
        return f"{version}, {size}-{seed}"
    return version


def _digest(name: str, folder: Path, splits: Splits) -> str:
    """The version of files: a digest of the images' names, sizes, splits and identities.

    MSMT17's edition stands before it, or that no camera is known.
    """
    is_csv = folder.is_file()
    base = folder.parent if is_csv else folder
    lines = []
    for split, records in splits.items():
        for path, identity, camera in records:
            file = Path(os.path.relpath(path, base)).as_posix()
            line = f"{split}/{file}\0{identity}\0{path.stat().st_size}"
            if is_csv:  # elsewhere the name has the camera
                line += f"\0{camera}"
            lines.append(line)
    text = "\n".join(sorted(lines))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    edition = msmt17_version(folder) if name == "msmt17" else ""
    if all(record.camera < 0 for records in splits.values() for record in records):
        edition = "no cameras"
    return f"{edition}, {digest}" if edition else digest


def _renumbered(records: Sequence[Record]) -> list[Record]:
    """The records with identities from 0 to n - 1, in the order of the old ones."""
    identities = sorted({record.identity for record in records})
    labels = {identity: label for label, identity in enumerate(identities)}
    return [record._replace(identity=labels[record.identity]) for record in records]
