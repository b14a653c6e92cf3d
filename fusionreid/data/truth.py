"""What is known of a rendered image: where the person is, and what was drawn of them.

Real sets have none of it. `<set>/attributes.csv` has a row an image,
`<set>/masks/<folder>/<name>.png` is white where the person is seen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..files import read_json
from .datasets import Dataset, Record


def has_truth(dataset: Dataset) -> bool:
    """Whether masks and attributes came with the set."""
    return (dataset.root / "attributes.csv").is_file()


def attributes(records: Sequence[Record]) -> pd.DataFrame:
    """The attributes of images, a row each, in order.

    Columns of the image: `identity` and `camera` (from 0), as in the files; `yaw`, degrees from
    -180 to 180, 0 towards the camera; `phase` of the gait, degrees; `visible`, the share of the
    person that is in the box and not hidden; `occluder` ("pole", "wall", "hedge", "person" or "");
    `companion` ("person" if somebody else is in the box, or ""); and the errors of the box, in
    heights of the person: `box_height` (1 is exact), `box_right` and `box_down`.

    Columns of the person: the `group` (family) of look-alikes, 0 is none; what is seen, by name
    ("build", "top", "top_colour", ...); shades ("top_colour_rgb", as #rrggbb); measures ("weight",
    "stature", ... from 0 to 1; `sleeves` from shoulder 0 to wrist 2, `length` of the bottom from
    hip 0 to ankle 2; `legs` and `width`, 1 is the body model's). In the probe also the `cue` that
    tells the people of a group apart, its `kind` ("local" or "global"), and the `strength` of the
    person's step from the base (0, 1, 2 or 3).
    """
    table = pd.read_csv(_root(records) / "attributes.csv", index_col="file", keep_default_na=False)
    files = [f"{path.parent.name}/{path.name}" for path, *_ in records]
    return table.loc[files].reset_index()


def looks(dataset: Dataset) -> np.ndarray:
    """What each training identity looks like: (identities, attributes) int64, a class for each
    attribute.

    The attributes are those that the set's manifest calls `looks`; the classes of one are numbered
    in sorted order.
    """
    manifest = _root(dataset.train) / "manifest.json"
    names = read_json(manifest).get("looks")
    if names is None:
        raise ValueError(f"{manifest}: expected a field looks; render the set again")
    # In order of the files' identities, as those of training are numbered.
    people = attributes(dataset.train).groupby("identity").first()
    classes = [pd.factorize(people[name], sort=True)[0] for name in names]
    return np.column_stack(classes)


def masks(records: Sequence[Record], size: tuple[int, int]) -> np.ndarray:
    """Where the person is seen: (N, *size) bool; nowhere in a false detection."""
    root = _root(records)
    arrays = []
    for path, *_ in records:
        with Image.open(root / "masks" / path.parent.name / f"{path.stem}.png") as image:
            resized = image.convert("L").resize(size[::-1], Image.Resampling.BOX)
        arrays.append(np.asarray(resized) > 127)
    return np.stack(arrays)


def _root(records: Sequence[Record]) -> Path:
    root = records[0].path.parent.parent
    table = root / "attributes.csv"
    if not table.is_file():
        raise FileNotFoundError(
            f"{table}: not there; only the synthetic set has masks and attributes"
        )
    return root
