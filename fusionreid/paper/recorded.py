"""Recorded runs: the rows of finished runs that are committed, `recorded.csv`, and their scores of each test person.

One run decides nothing, so every variant is trained with several training seeds on several draws of the data, once and
for all readers: `python -m fusionreid experiments all --data-seeds 0 1 --seeds 0 1 2 3 --record`. A variant finds its
rows by its configuration, seeds aside: where the training or the renderer changes, they are a gap until made anew.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .. import paths
from ..data.datasets import open_data
from ..data.synthetic import RENDERER
from ..files import atomic_write
from ..training.runs import RunConfig, read_result
from .experiments import EXPERIMENTS, Setting, plan
from .intervals import Interval, difference_interval

METRICS = ("mAP", "rank-1")
_ONE = [
    "profile",
    "data",
    "size",
    "row",
    "data_seed",
    "seed",
    "feature",
]  # recorded again, a row replaces its like
_COLUMNS = [*_ONE, *METRICS, "version", "commit", "device", "run", "configuration"]


def configuration(run: RunConfig) -> str:
    """The fingerprint that all seeds and data seeds of a variant share."""
    version = f"v{RENDERER}" if run.data.name == "synthetic" else run.data.version
    return replace(run, seed=0, data=replace(run.data, seed=0, version=version)).fingerprint


class Recorded(NamedTuple):
    """What is recorded; see `load`."""

    rows: pd.DataFrame
    scores: dict[str, np.ndarray]
    by_row: dict[tuple[str, str], pd.DataFrame]


def load() -> Recorded:
    """What is recorded.

    Returns `rows`, one per run and feature: `row` is the first variant that it is ("table2: DFE"), `mAP` and `rank-1`
    are in percent, `run` and `configuration` are fingerprints. `scores`, by run the (features, metrics, people) float16
    fractions of 1; by the data's name and version the (2, people) identities and their numbers of queries. `by_row`, by
    (configuration, feature) its rows, by `data_seed` and `seed`; `place` is the feature's in `scores`.
    """
    files = [paths.RECORDED / f"recorded{suffix}" for suffix in (".csv", ".npz")]
    return _read(
        *((file, file.stat().st_mtime_ns) if file.is_file() else (None, 0) for file in files)
    )


@functools.lru_cache(maxsize=2)
def _read(table: tuple[Path | None, int], scores: tuple[Path | None, int]) -> Recorded:
    if None in (table[0], scores[0]):
        return Recorded(pd.DataFrame(columns=_COLUMNS), {}, {})
    rows = pd.read_csv(table[0], keep_default_na=False)
    placed = rows.assign(place=rows.groupby("run").cumcount()).set_index(["data_seed", "seed"])
    with np.load(scores[0]) as arrays:
        return Recorded(
            rows, dict(arrays), dict(list(placed.groupby(["configuration", "feature"])))
        )


def record(setting: Setting, data_root: str | Path | None = None) -> int:
    """Adds the finished runs of a setting, or replaces what was recorded of them; returns how many there are.

    Raises ValueError: a run's data are not those at hand, or its result is damaged.
    """
    dataset = open_data(setting.data, data_root or paths.DATA)
    rows, found, arrays = load().rows, [], dict(load().scores)
    for label, run in plan([*EXPERIMENTS, "differences"], setting).items():
        if (result := read_result(run.fingerprint, setting.runs_root)) is None:
            continue
        folder, version = setting.runs_root / run.fingerprint, result["data"]["version"]
        if version != dataset.version:
            raise ValueError(
                f"{folder}: trained on version {version!r}; {dataset.root} is {dataset.version!r}"
            )
        about = {
            "profile": setting.profile.name, "data": dataset.name, "size": run.data.size,
            "row": label.split(", also ")[0].removesuffix(f" (seed {run.seed})"), "data_seed": run.data.seed,
            "seed": run.seed, "version": version, "commit": result["commit"], "device": result["device"],
            "run": run.fingerprint, "configuration": configuration(run),
        }  # fmt: skip
        features = sorted(result["features"])
        for name in features:
            metrics = {metric: 100 * result["features"][name][metric] for metric in METRICS}
            found.append(about | {"feature": name} | metrics)
        with (
            np.load(folder / "average_precision.npz") as precision,
            np.load(folder / "first_match.npz") as first,
        ):
            scores = np.array(
                [[precision[name], first[name] == 1] for name in features]
            )  # features, metrics, queries
        valid = np.isfinite(scores[0, 0])
        identities = np.array([record.identity for record in dataset.query])[valid]
        people, queries = np.unique(identities, return_counts=True)
        arrays[run.fingerprint] = (
            scores[..., valid] @ (identities[:, None] == people) / queries
        ).astype(np.float16)
        arrays[f"{dataset.name} {version}"] = np.array([people, queries])
    if found:
        rows = pd.concat([*([rows] if len(rows) else []), pd.DataFrame(found)])[_COLUMNS]
        rows = rows.drop_duplicates(_ONE, keep="last").sort_values(_ONE, kind="stable")
        kept = {*rows["run"], *(rows["data"] + " " + rows["version"])}
        with atomic_write(paths.RECORDED / "recorded.npz") as temporary:
            np.savez_compressed(temporary, **{name: arrays[name] for name in sorted(kept)})
            with atomic_write(
                paths.RECORDED / "recorded.csv"
            ) as table:  # within: both change, or none
                rows.to_csv(table, index=False, float_format="%.3f", lineterminator="\n")
    return len({row["run"] for row in found})


def of(key: str, feature: str) -> pd.DataFrame:
    """The rows of one configuration and feature, by `data_seed` and `seed`; none where nothing is recorded."""
    none = pd.DataFrame(columns=_COLUMNS).set_index(["data_seed", "seed"])
    return load().by_row.get((key, feature), none)


def shared_runs(keys: Iterable[str]) -> pd.Index:
    """The pairs of data seed and seed that all configurations have of which anything is recorded."""
    runs = [of(key, "all").index for key in keys]
    return functools.reduce(
        pd.Index.intersection, [each for each in runs if len(each)] or [pd.Index([])]
    )


def contrast(
    weights: Mapping[tuple[str, str], float], metric: str, factors: Callable | None = None
) -> Interval:
    """The interval of a weighted sum of rows, over the seeds that all of them have, in points.

    `weights` are by (configuration, feature): one row less another is {(one, "all"): 1, (other, "all"): -1}. `factors`
    gives, of a data seed, its identities and their numbers of queries, what each person's scores are multiplied by;
    people of factor 0 are left out.
    """
    scores, chosen = load().scores, {pair: of(*pair) for pair in weights}
    shared = functools.reduce(pd.Index.intersection, (each.index for each in chosen.values()))
    total: dict[tuple[int, str], dict[int, np.ndarray]] = {}  # by data, by seed: (people,)
    for pair, weight in weights.items():
        for row in chosen[pair].loc[shared].reset_index().to_dict("records"):
            people = total.setdefault((row["data_seed"], f"{row['data']} {row['version']}"), {})
            value = weight * scores[row["run"]][row["place"], METRICS.index(metric)].astype(float)
            people[row["seed"]] = people.get(row["seed"], 0) + value
    parts = []
    for (data_seed, data), seeds in total.items():
        factor = factors(data_seed, *scores[data]) if factors else np.ones(scores[data].shape[1])
        values, kept = 100 * factor * np.stack(list(seeds.values())), factor != 0
        parts.append((values[:, kept], scores[data][1, kept]))
    return difference_interval(parts)


def about(keys: list[str]) -> str:
    """How many seeds and people stand behind the rows of some configurations, and where they were made."""
    rows, scores, _ = load()
    rows = rows[rows["configuration"].isin(keys)]
    if rows.empty:
        return "nothing of this setting"
    seeds = rows.groupby("configuration")["run"].nunique()
    runs = f"{seeds.min()} to {seeds.max()} runs a row, means of the {len(shared_runs(keys))} that all have"
    runs = runs if seeds.min() < seeds.max() else f"{seeds.max()} runs a row"
    people = sum(scores[name].shape[1] for name in (rows["data"] + " " + rows["version"]).unique())
    between = {"seed": ", ", "data_seed": ", ", "version": "; ", "commit": ", ", "device": ", "}
    listed = {name: by.join(map(str, sorted(rows[name].unique()))) for name, by in between.items()}
    return (
        "{runs}, training seeds {seed}, data seeds {data_seed}, {people} test people, data {version}, "
        "commit {commit}, device {device}"
    ).format(runs=runs, people=people, **listed)
