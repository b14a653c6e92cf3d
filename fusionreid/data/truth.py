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
    return table.loc[
        [f"{Path(record.path).parent.name}/{Path(record.path).name}" for record in records]
    ].reset_index()


def looks(dataset: Dataset) -> np.ndarray:
    """What each training identity looks like: (identities, attributes) int64, a class by each of `Person.looks`."""
    seed = read_json(_root(dataset.train) / "manifest.json")["seed"]
    numbers = (
        attributes(dataset.train)["identity"]
        .groupby([record.identity for record in dataset.train])
        .first()
    )
    table = pd.DataFrame([draw(seed, number).looks for number in numbers])
    return np.column_stack([pd.factorize(table[name], sort=True)[0] for name in table])


def masks(records: Sequence[Record], size: tuple[int, int]) -> np.ndarray:
    """Where the person is seen: (N, *size) bool; nowhere in a false detection."""
    root, found = _root(records), []
    for path in (Path(record.path) for record in records):
        with Image.open(root / "masks" / path.parent.name / f"{path.stem}.png") as image:
            found.append(
                np.asarray(image.convert("L").resize(size[::-1], Image.Resampling.BOX)) > 127
            )
    return np.stack(found)


def edge_shortcut(
    images: np.ndarray, masks: np.ndarray, identities: np.ndarray, cameras: np.ndarray
) -> dict:
    """Whether the background names people: how often the image with the nearest edges, in a camera, is of the same one.

    An edge is a sixteenth of the width, left and right; images in whose edges the person stands are left out.
    Images are (N, H, W, 3) uint8; masks (N, H, W) bool, true on the person; identities and cameras (N,). Returns
    `accuracy`, `chance` and its `standard error` (people shuffled 200 times inside each camera), and the `images` left.
    """
    width = max(1, images.shape[2] // 16)
    edges = np.r_[:width, -width:0]
    empty = ~masks[:, :, edges].any(axis=(1, 2))
    random, hits, scored = np.random.default_rng(0), np.zeros(201), 0
    for of in (np.flatnonzero(empty & (cameras == camera)) for camera in np.unique(cameras)):
        if len(of) < 2:
            continue
        pixels, people = (
            images[of][:, :, edges].reshape(len(of), -1).astype(np.float32),
            identities[of],
        )
        distances = np.square(pixels).sum(axis=1) - 2 * pixels @ pixels.T
        np.fill_diagonal(distances, np.inf)
        nearest, scored = distances.argmin(axis=1), scored + len(of)
        for turn in range(len(hits)):  # first as they are
            hits[turn] += np.count_nonzero(people[nearest] == people)
            people = random.permutation(people)
    found, chances = float(hits[0]) / max(scored, 1), hits[1:] / max(scored, 1)
    return {
        "accuracy": found,
        "chance": chances.mean(),
        "standard error": chances.std(),
        "images": scored,
    }


def _root(records: Sequence[Record]) -> Path:
    root = Path(records[0].path).parent.parent
    if not (root / "attributes.csv").is_file():
        expected = "only the synthetic set has masks and attributes"
        raise FileNotFoundError(f"{root / 'attributes.csv'}: not there; {expected}")
    return root
