"""Which cues a feature sees: forced choices between somebody and a look-alike of one other cue.

The paper says that a CNN sees local cues and a Transformer global ones. The pairs of people of
`data.datasets.open_probe` differ in one cue alone. A choice is a query, an image of the same person
by another camera, and an image of the look-alike that differs from it in nothing but the cue: pose,
light and what stands in front are the same. It is right if the own image is nearer than the other.
Chance is one half. Intervals are of 95 %, by a bootstrap over bases, people with their look-alikes.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..data import Dataset
from ..data.truth import attributes
from ..files import mistaken
from ..models.fusionreid import FusionReID
from ..options import one_of
from .evaluate import Retrieval, retrieve
from .ranking import Labels

DRAWS = 4000  # of the bootstrap


class Contrast(NamedTuple):
    """How far a CNN is ahead of a Transformer, as differences of accuracies (0 to 1)."""

    on_local: float  # at local cues
    on_global: float  # at global cues
    mean: float  # the first less the second: the paper's thesis says that it is above 0
    low: float  # the ends of its interval; NaN where a cue has one base
    high: float
    bases: int

    @property
    def verdict(self) -> str:
        """On the thesis: "yes", "the opposite", or "undecided" where the interval holds 0."""
        if self.low > 0:
            return "yes"
        return "the opposite" if self.high < 0 else "undecided"

    def __str__(self) -> str:
        """In points, with its interval."""
        local = f"{100 * self.on_local:+.1f} points at local cues"
        both = f"{local} and {100 * self.on_global:+.1f} at global ones"
        interval = f"95 % from {100 * self.low:.1f} to {100 * self.high:.1f}"
        return f"{both}, a difference of {100 * self.mean:+.1f} ({interval}, {self.bases} bases)"


def choices(
    retrieval: Retrieval, query_attributes: pd.DataFrame, gallery_attributes: pd.DataFrame
) -> pd.DataFrame:
    """How often the choice between a base and a look-alike is right, by each feature and by "all".

    Attributes are tables of `data.truth.attributes` of the probe, in order; the first image of the
    one belongs to the first image of the other. Each of the two people is looked for in turn. If
    both images are equally near, half a choice is right.

    Returns a row for each feature and pair: `feature`, `kind`, `cue`, `group`, the base's number,
    `strength`, and `accuracy`, the share of right choices (0 to 1).
    """
    asked = query_attributes.groupby("group").indices
    shown = gallery_attributes.groupby("group").indices
    query_strength = query_attributes["strength"].to_numpy()
    gallery_strength = gallery_attributes["strength"].to_numpy()
    rows = []
    for feature in ("all", *retrieval.query_features):
        query, gallery = retrieval.select(feature)
        for group, queries in asked.items():
            images = shown[group]
            similarities = query[queries] @ gallery[images].T
            about = query_attributes.iloc[queries[0]][["kind", "cue", "group"]]
            for strength in range(1, query_strength[queries].max() + 1):
                shares = []
                for mine, other in ((0, strength), (strength, 0)):
                    near = similarities[query_strength[queries] == mine]
                    own = near[:, gallery_strength[images] == mine]
                    alike = near[:, gallery_strength[images] == other]
                    shares.append((1 + np.sign(own - alike).mean()) / 2)
                row = {"strength": strength, "accuracy": np.mean(shares)}
                rows.append({"feature": feature, **about, **row})
    return pd.DataFrame(rows)


def of_model(
    model: FusionReID, dataset: Dataset, *, cache_directory: str | Path, **options
) -> pd.DataFrame:
    """The `choices` of each feature of a model; `options` are of `retrieve`."""
    retrieval = retrieve(model, dataset, cache_directory=cache_directory, **options)
    return choices(retrieval, attributes(dataset.query), attributes(dataset.gallery))


def of_file(path: str | Path, dataset: Dataset) -> pd.DataFrame:
    """The `choices` of features that another program has computed of the probe's images.

    `path` is an .npz file with the arrays `query` (Q, D) and `gallery` (G, D), in the order of the
    names of the images in `query/` and `bounding_box_test/`. The feature is called "file".

    Raises ValueError, naming the file, if it is something else.
    """
    if not zipfile.is_zipfile(path):
        found = mistaken(path) or "something else"
        raise ValueError(f"{path}: expected an .npz file with query and gallery, found {found}")
    with np.load(path) as file:
        arrays = {name: np.asarray(file[name]) for name in file.files}
    sides = []
    for name in ("query", "gallery"):
        if name not in arrays:
            raise ValueError(f"{path}: expected arrays query and gallery, found {sorted(arrays)}")
        array = arrays[name]
        images = len(dataset.splits[name])
        width = sides[0].shape[1] if sides else "D"
        if array.ndim != 2 or len(array) != images or width not in ("D", array.shape[1]):
            raise ValueError(f"{path}: expected {name} ({images}, {width}), found {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: expected finite numbers in {name}, found others")
        sides.append(array)
    query, gallery = sides
    labels = Labels.of(dataset.query), Labels.of(dataset.gallery)
    retrieval = Retrieval({"file": query}, {"file": gallery}, *labels)
    table = choices(retrieval, attributes(dataset.query), attributes(dataset.gallery))
    return table[table["feature"] == "file"]  # "all" is the same feature


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """The mean of `choices` over bases, by feature, cue and strength; cue "all" is all of a kind.

    Returns columns `feature`, `kind`, `cue`, `strength`, `accuracy`, `low` and `high`, the ends of
    its interval (NaN of one base), and `pairs`, their number.
    """
    whole = table.assign(cue="all")
    by = ["feature", "kind", "cue", "strength"]
    rows = []
    for place, pairs in pd.concat([table, whole]).groupby(by, sort=False):
        cues = table.loc[pairs.index, "cue"]
        parts = [part.to_numpy() for _, part in pairs["accuracy"].groupby(cues)]
        low, high = _ends(_draws(parts, np.random.default_rng(0)))
        row = {"accuracy": pairs["accuracy"].mean(), "low": low, "high": high}
        rows.append(dict(zip(by, place, strict=True)) | row | {"pairs": len(pairs)})
    return pd.DataFrame(rows)


def contrast(table: pd.DataFrame, cnn: str = "cnn", transformer: str = "transformer") -> Contrast:
    """How much further the CNN is ahead at local cues than at global ones.

    Args:
        table: of `choices`; of two models, the rows of both, with other names of features.
        cnn, transformer: which features stand for the branches.

    Every base counts with its mean over strengths, every cue alike. Raises ValueError for a feature
    that is not in the table.
    """
    for name, feature in (("cnn", cnn), ("transformer", transformer)):
        one_of(name, feature, table["feature"].unique())
    means = table.pivot_table("accuracy", ["kind", "cue", "group"], "feature")
    ahead = means[cnn] - means[transformer]
    parts = {}
    for kind in ("local", "global"):
        parts[kind] = [part.to_numpy() for _, part in ahead[kind].groupby("cue")]
    rng = np.random.default_rng(0)
    low, high = _ends(_draws(parts["local"], rng) - _draws(parts["global"], rng))
    on_local = float(np.mean([part.mean() for part in parts["local"]]))
    on_global = float(np.mean([part.mean() for part in parts["global"]]))
    return Contrast(on_local, on_global, on_local - on_global, low, high, len(ahead))


def _draws(parts: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Bootstrap draws (DRAWS,) of the mean over cues; `parts` are the bases' values of each cue."""
    total = np.zeros(DRAWS)
    for values in parts:
        if len(values) == 1:
            return np.full(DRAWS, np.nan)
        drawn = rng.integers(len(values), size=(DRAWS, len(values)))
        total += values[drawn].mean(axis=1)
    return total / len(parts)


def _ends(draws: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)
