"""Which cues a feature sees: forced choices between somebody and a look-alike of one other cue.

The paper says that a CNN sees local cues and a Transformer global ones. The pairs of people of
`data.datasets.open_probe` differ in one cue alone. A choice is a query, an image of the same person
by another camera, and an image of the look-alike that differs from it in nothing but the cue: pose,
light and what stands in front are the same. It is right if the own image is nearer than the other.
Chance is one half. Intervals are of 95 %, by a bootstrap over bases, people with their look-alikes.
"""

import zipfile
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
ENDS = [0.025, 0.975]  # of an interval of 95 %, as quantiles


class Contrast(NamedTuple):
    """How far a CNN is ahead of a Transformer, as differences of accuracies (0 to 1)."""

    on_local: float  # at local cues
    on_global: float  # at global cues
    mean: float  # the first minus the second: the paper's thesis says that it is above 0
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
        return (
            f"{100 * self.on_local:+.1f} points at local cues and "
            f"{100 * self.on_global:+.1f} at global ones, "
            f"a difference of {100 * self.mean:+.1f} "
            f"(95 % from {100 * self.low:.1f} to {100 * self.high:.1f}, {self.bases} bases)"
        )


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
    facts = gallery_attributes[["kind", "cue", "group"]].drop_duplicates().sort_values("group")
    count = len(facts)
    tables = []
    for feature in ("all", *retrieval.query_features):
        query, gallery = retrieval.select(feature)
        query = _of_groups(query, query_attributes, count)
        gallery = _of_groups(gallery, gallery_attributes, count)
        # Of each group: two people, an image of each.
        similar = np.einsum("gpqd,grid->gprqi", query, gallery)
        steps = []
        for strength in range(1, query.shape[1]):
            own = similar[:, [0, strength], [0, strength]]
            alike = similar[:, [0, strength], [strength, 0]]
            shares = (1 + np.sign(own - alike)) / 2
            accuracy = shares.mean(axis=(1, 2, 3))
            steps.append(facts.assign(feature=feature, strength=strength, accuracy=accuracy))
        tables.append(pd.concat(steps).sort_values(["group", "strength"]))
    return pd.concat(tables, ignore_index=True)


def _of_groups(vectors: np.ndarray, table: pd.DataFrame, count: int) -> np.ndarray:
    """Vectors (N, D) of images by group, strength and image: (count, strengths, images, D)."""
    order = np.lexsort([table["strength"], table["group"]])
    return vectors[order].reshape(count, table["strength"].nunique(), -1, vectors.shape[1])


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
        arrays = dict(file)
    sides = []
    for name in ("query", "gallery"):
        if name not in arrays:
            raise ValueError(f"{path}: expected arrays query and gallery, found {sorted(arrays)}")
        array = arrays[name]
        expected = (len(dataset.splits[name]), arrays["query"].shape[-1])
        if array.shape != expected:
            raise ValueError(f"{path}: expected {name} {expected}, found {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{path}: expected finite numbers in {name}, found others")
        sides.append({"file": array})
    retrieval = Retrieval(*sides, Labels.of(dataset.query), Labels.of(dataset.gallery))
    table = choices(retrieval, attributes(dataset.query), attributes(dataset.gallery))
    return table[table["feature"] == "file"]  # "all" is the same feature


def accuracies(table: pd.DataFrame) -> pd.DataFrame:
    """The mean of `choices` over bases, by feature, cue and strength; cue "all" is all of a kind.

    Returns columns `feature`, `kind`, `cue`, `strength`, `accuracy`, `low` and `high`, the ends of
    its interval (NaN of one base), and `pairs`, their number.
    """
    table = table.reset_index(drop=True)
    whole = table.assign(cue="all")
    by = ["feature", "kind", "cue", "strength"]
    rows = []
    for place, pairs in pd.concat([table, whole]).groupby(by, sort=False):
        right = pairs["accuracy"]
        cues = table["cue"][pairs.index]
        low, high = np.quantile(_draws(right, cues, np.random.default_rng(0)), ENDS)
        rows.append((*place, right.mean(), low, high, len(pairs)))
    return pd.DataFrame(rows, columns=[*by, "accuracy", "low", "high", "pairs"])


def contrast(table: pd.DataFrame, cnn: str = "cnn", transformer: str = "transformer") -> Contrast:
    """How much further the CNN is ahead at local cues than at global ones.

    Args:
        table: of `choices`; of two models, the rows of both, with other names of features.
        cnn, transformer: which features stand for the branches.

    Every base counts alike, with its mean over strengths. Raises ValueError for a feature that is
    not in the table.
    """
    for feature in (cnn, transformer):
        one_of("feature", feature, table["feature"].unique())
    means = table.pivot_table("accuracy", ["kind", "cue", "group"], "feature")
    ahead = means[cnn] - means[transformer]
    rng = np.random.default_rng(0)
    draws = {kind: _draws(rows, "cue", rng) for kind, rows in ahead.groupby("kind")}
    low, high = np.quantile(draws["local"] - draws["global"], ENDS)
    on_local = float(ahead["local"].mean())
    on_global = float(ahead["global"].mean())
    return Contrast(on_local, on_global, on_local - on_global, low, high, len(ahead))


def _draws(values: pd.Series, cues, rng: np.random.Generator) -> np.ndarray:
    """Bootstrap draws (DRAWS,) of the mean; each of the cues keeps its number of bases."""
    total = np.zeros(DRAWS)
    for _, of_cue in values.groupby(cues):
        bases = of_cue.to_numpy()
        drawn = rng.integers(len(bases), size=(DRAWS, len(bases)))
        # One base does not tell how bases differ.
        total += bases[drawn].sum(axis=1) if len(bases) > 1 else np.nan
    return total / len(values)
