"""Recorded runs: finished runs that are committed, and their scores of each test person.

One run decides nothing. So every variant is trained with several training seeds on several draws
of real and of synthetic people, once and for all readers:
`python -m fusionreid experiments all --data-seeds 0 1 --seeds 0 1 2 3 --record`, and again with
`--dataset market1501`. `recorded.csv` has the accuracies, `recorded.npz` the scores. A variant
finds its runs by its configuration. When the training or the renderer changes, it finds none until
they are made anew.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import paths
from ..config import ModelConfig, Profile
from ..data.datasets import Dataset, open_data
from ..data.synthetic import RENDERER
from ..files import atomic_write
from ..training.runs import RunConfig, make_run, read_result, with_versions
from .experiments import Setting, plan
from .intervals import (
    Interval,
    Scores,
    deviations,
    difference_interval,
    half_width,
    variance_of_seeds,
)
from .numbers import ACCURACY, TITLES

# What recorded runs are of, and the data set of each: of a real one, draws of its people.
SOURCES = {"real": "market1501", "synthetic": "synthetic"}
# What tells rows apart: a run that is recorded again replaces its rows.
KEYS = ["profile", "data", "size", "row", "data_seed", "seed", "feature"]
LOCKED = (2, 3)  # data seeds that are run once, at the end; they confirm, and enter no other number
COLUMNS = [*KEYS, *ACCURACY, "version", "commit", "device", "run", "configuration"]


def configuration(run: RunConfig) -> str:
    """The fingerprint that all training seeds and data seeds of a variant share.

    The version of a real set comes from its files, which a reader of its rows may not have. So it
    does not count here.
    """
    data = replace(run.data, seed=0)
    if data.name != "synthetic":
        data = replace(data, version="")
    return replace(run, seed=0, data=data).fingerprint


def configuration_of(config: ModelConfig, profile: Profile, source: str) -> str:
    """The configuration that a model has in the recorded runs of one of `SOURCES`."""
    data = replace(profile.data, name=SOURCES[source], version=f"v{RENDERER}")
    return configuration(with_versions(make_run(profile, config, data=data)))


class Archive(NamedTuple):
    """All recorded runs.

    Attributes:
        rows: a row per run and feature. `row` is the first variant that the run is, `mAP` and
            `rank-1` are in percent, `run` and `configuration` are fingerprints.
        arrays: by run, the scores of all features, (features, metrics, people), as float16, from 0
            to 1; by name and version of the data, the identities of its people, and how many
            queries each has, (2, people).
        runs: by (configuration, feature), then by (data seed, version, seed), the scores of both
            metrics. Runs of other files have another version, and are not paired.
    """

    rows: pd.DataFrame
    arrays: dict[str, np.ndarray]
    runs: dict[tuple[str, str], dict[tuple[int, str, int], Scores]]


def archive() -> Archive:
    """The recorded runs as the files have them now. Files are read once: change nothing in it."""
    table = paths.RECORDED / "recorded.csv"
    if not table.is_file():
        return Archive(pd.DataFrame(columns=COLUMNS), {}, {})
    return _read(table, table.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read(table: Path, date: int) -> Archive:
    rows = pd.read_csv(table, keep_default_na=False)
    with np.load(table.with_suffix(".npz")) as file:
        arrays = dict(file)
    runs = {}
    places = rows.groupby("run").cumcount()  # of a feature in the array of its run
    for row, place in zip(rows.itertuples(), places, strict=True):
        scores = arrays[row.run][place].astype(float)
        _, queries = arrays[f"{row.data} {row.version}"]
        of_row = runs.setdefault((row.configuration, row.feature), {})
        of_row[row.data_seed, row.version, row.seed] = scores, queries
    return Archive(rows, arrays, runs)


def record(setting: Setting) -> int:
    """Adds the finished runs of a setting, or replaces their rows; returns how many there are.

    Raises ValueError: a result is damaged, or the data are not those of the setting.
    """
    dataset = open_data(setting.data, setting.data_root)
    rows = archive().rows
    arrays = dict(archive().arrays)
    count = 0
    for label, run in plan(TITLES, setting).items():
        result = read_result(run.fingerprint, setting.runs_root)
        if result is None:
            continue
        features = sorted(result["features"])
        folder = setting.runs_root / run.fingerprint
        people, scores = _scores_of_people(folder, features, dataset)
        arrays[f"{dataset.name} {dataset.version}"] = people
        arrays[run.fingerprint] = scores
        new = 100 * pd.DataFrame(result["features"]).T.loc[features, [*ACCURACY]]
        new = new.assign(
            profile=setting.profile.name,
            data=dataset.name,
            size=run.data.size,
            row=label.split(", also ")[0].removesuffix(f" (seed {run.seed})"),
            data_seed=run.data.seed,
            seed=run.seed,
            feature=features,
            version=dataset.version,
            commit=result["commit"],
            device=result["device"],
            run=run.fingerprint,
            configuration=configuration(run),
        )
        rows = pd.concat([rows, new]) if len(rows) else new
        count += 1
    if count:
        rows = rows[COLUMNS].drop_duplicates(KEYS, keep="last").sort_values(KEYS, kind="stable")
        _write(rows, arrays)
    return count


def _scores_of_people(
    folder: Path, features: list[str], dataset: Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """The people and the scores of a run, as `Archive.arrays` has them."""
    with np.load(folder / "average_precision.npz") as file:
        precision = np.stack([file[name] for name in features])  # (features, queries)
    with np.load(folder / "first_match.npz") as file:
        first = np.stack([file[name] for name in features]) == 1
    scored = np.isfinite(precision[0])  # not NaN, which is a query without a match
    identities = np.array([record.identity for record in dataset.query])[scored]
    people, queries = np.unique(identities, return_counts=True)
    scores = np.stack([precision, first], axis=1)[..., scored]  # (features, metrics, queries)
    means = scores @ (identities[:, None] == people) / queries
    return np.array([people, queries]), means.astype(np.float16)


def _write(rows: pd.DataFrame, arrays: dict[str, np.ndarray]) -> None:
    kept = {*rows["run"], *(rows["data"] + " " + rows["version"])}
    # One within the other, so that both files change, or none.
    with atomic_write(paths.RECORDED / "recorded.csv") as table:
        rows.to_csv(table, index=False, float_format="%.3f", lineterminator="\n")
        with atomic_write(paths.RECORDED / "recorded.npz") as file:
            np.savez_compressed(file, **{name: arrays[name] for name in sorted(kept)})


Weights = Mapping[tuple[str, str], float]  # by (configuration, feature)


def contrast(weights: Weights, metric: str, locked: bool = False) -> Interval:
    """The interval of a weighted sum of rows, in points, over the seeds that all of them have.

    One row minus another is {(one, "all"): 1, (other, "all"): -1}. With `locked`, it is that of the
    `LOCKED` data seeds alone.
    """
    return difference_interval(_sums(weights, metric, locked))


def spread(weights: Weights, metric: str) -> dict[str, float]:
    """How far a weighted sum of rows moves with seeds, people and draws (`deviations`)."""
    return deviations(_sums(weights, metric))


def _sums(weights: Weights, metric: str, locked: bool = False) -> list[Scores]:
    """A weighted sum of rows, in points, in the runs that all of them have.

    A part for each data seed, as `difference_interval` takes it. Of the data seeds, those `LOCKED`
    are taken, or all others.
    """
    runs = [archive().runs.get(row, {}) for row in weights]
    in_all = sorted(set.intersection(*map(set, runs)))
    place = ACCURACY.index(metric)
    parts = []
    for (data_seed, _), keys in groupby(in_all, key=itemgetter(0, 1)):
        if (data_seed in LOCKED) != locked:
            continue
        keys = list(keys)
        scores = [[of_row[key][0][place] for key in keys] for of_row in runs]
        _, queries = runs[0][keys[0]]
        parts.append((100 * np.tensordot([*weights.values()], scores, 1), queries))
    return parts


def expected(configuration: str, data_seed: int) -> tuple[float, float]:
    """Where the mAP of one more training seed lies in 19 of 20 cases, on one draw; in percent.

    The deviation between seeds is that of all rows of the data set, as a row has few runs. NaN
    where none of the row is recorded on the draw.
    """
    rows = archive().rows.query("feature == 'all'")
    runs = rows.query("configuration == @configuration and data_seed == @data_seed")
    if runs.empty:
        return np.nan, np.nan
    rows = rows[rows["data"].isin(runs["data"])].groupby(["configuration", "data_seed"])["mAP"]
    variance, freedom = variance_of_seeds([of_row.to_numpy() for _, of_row in rows])
    # One more run differs from the others' mean by its own deviation and by that of the mean.
    half = half_width(np.sqrt(variance * (1 + 1 / len(runs))), freedom)
    return runs["mAP"].mean() - half, runs["mAP"].mean() + half


def about(configurations: Iterable[str]) -> str:
    """How many seeds and people are behind recorded runs of one data set, and on what they ran."""
    rows, arrays, _ = archive()
    rows = rows[rows["configuration"].isin(configurations) & ~rows["data_seed"].isin(LOCKED)]
    if rows.empty:
        return "no runs"
    counts = rows.groupby("configuration")["run"].nunique()
    runs = f"{counts.max()} runs a row"
    if counts.min() < counts.max():
        runs = f"{counts.min()} to {runs}"
    (data,) = rows["data"].unique()
    identities = [arrays[f"{data} {version}"][0] for version in rows["version"].unique()]
    people = np.concatenate(identities)
    if data != "synthetic":  # whose people of different draws have the same numbers
        people = np.unique(people)
    return (
        f"{runs}, training seeds {listed(rows['seed'])}, data seeds {listed(rows['data_seed'])}, "
        f"{len(people)} different test people, data {listed(rows['version'], '; ')}, "
        f"commit {listed(rows['commit'])}, device {listed(rows['device'])}"
    )


def listed(values: Iterable, separator: str = ", ") -> str:
    """The different values, in order."""
    return separator.join(map(str, sorted(set(values))))
