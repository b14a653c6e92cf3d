"""What is known of a rendered image: where the person is, and what was drawn of them. Real sets have none of it.

`<set>/attributes.csv` has a row an image, `<set>/masks/<folder>/<name>.png` is white where the person is seen.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..files import read_json
from .datasets import Dataset, Record
from .synthetic.people import draw


def has_truth(dataset: Dataset) -> bool:
    """Whether masks and attributes came with the set."""
    return (dataset.root / "attributes.csv").is_file()


def attributes(records: Sequence[Record]) -> pd.DataFrame:
    """A row for each image, in order.

    Columns: `identity` and `camera` (from 0), as in the files; `group` of look-alikes (0: none), the `kind` of cue that
    tells them apart ("local", "global" or ""), the `cue` ("print", "shoes", "bag", "hair"; "build", "height",
    "silhouette", "gait") and its `value`; `yaw`, degrees from -180 to 180, 0 towards the camera; `phase` of the gait,
    degrees; `visible`, the share of the person that is in the box and not hidden; `occluder` ("pole", "wall",
    "hedge" or "").
    """
    table = pd.read_csv(_root(records) / "attributes.csv", index_col="file", keep_default_na=False)
    return table.loc[[f"{Path(record.path).parent.name}/{Path(record.path).name}" for record in records]].reset_index()


def looks(dataset: Dataset) -> np.ndarray:
    """What each training identity looks like: (identities, attributes) int64, a class by each of `Person.looks`."""
    seed = read_json(_root(dataset.train) / "manifest.json")["seed"]
    numbers = attributes(dataset.train)["identity"].groupby([record.identity for record in dataset.train]).first()
    table = pd.DataFrame([draw(seed, number).looks for number in numbers])
    return np.column_stack([pd.factorize(table[name], sort=True)[0] for name in table])


def masks(records: Sequence[Record], size: tuple[int, int]) -> np.ndarray:
    """Where the person is seen: (N, *size) bool; nowhere in a false detection."""
    root, found = _root(records), []
    for path in (Path(record.path) for record in records):
        with Image.open(root / "masks" / path.parent.name / f"{path.stem}.png") as image:
            found.append(np.asarray(image.convert("L").resize(size[::-1], Image.Resampling.BOX)) > 127)
    return np.stack(found)


def _root(records: Sequence[Record]) -> Path:
    root = Path(records[0].path).parent.parent
    if not (root / "attributes.csv").is_file():
        expected = "only the synthetic set has masks and attributes"
        raise FileNotFoundError(f"{root / 'attributes.csv'}: not there; {expected}")
    return root
