"""The paper's numbers meet ours here, and nowhere else: what tables, claims and curves show.

Ours are the recorded runs (`recorded`), on real and on synthetic people, and the reader's own. What
has not been run is a gap in a frame, not an error.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from ..config import DATASETS, FEATURES, LABELS, ModelConfig
from ..models.cost import measure
from ..training.runs import read_result
from . import numbers as paper
from . import recorded
from .experiments import CONFIGURATIONS, Setting, label, names_of, variants
from .numbers import ACCURACY

COSTED = ("table2", "table3", "table4", "table5", "table6")
# The reference row, which the others are compared with: the full model, or what it is built on.
BASES = {
    "table1": "FusionReID*",
    "table2": "DFE",
    "table3": "SEU, MFU",
    "table4": "SEU shared, MFU unshared",
    "table5": "GeM",
    "table6": "ResNet50 + ViT-B/16*",
    "figure5": "L = 2",
    "figure6": "D = 768",
    "differences": "PAPER",
}
SOURCES = ("paper", *recorded.SOURCES, "own")
ROW = ["experiment", "variant", "feature", "metric"]  # what tells the rows of a source apart
# Which features an experiment shows. All others show "all", the features side by side.
SHOWN = {"table6": ("cnn_fused", "transformer_fused", "all"), "figure5": (*FEATURES, "all")}


def features_of(config: ModelConfig) -> list[str]:
    """The features that a model has, "all" last."""
    if config.fusion:
        return [*FEATURES[: 6 if config.fusion.units else 4], "all"]
    return [*(branch for branch in FEATURES[:2] if getattr(config, branch)), "all"]


def papers_dataset(names: Sequence[str], dataset: str) -> str:
    """The paper's data set beside `dataset`: itself, if the paper has it in all experiments.

    Else it is MSMT17, which it always has: one claim must not mix two data sets.
    """
    tables = [paper.table(name)["dataset"] for name in names]
    if all(dataset in set(table) for table in tables if len(table)):
        return dataset
    return "msmt17"


@dataclass(frozen=True)
class Results:
    """The paper's numbers beside ours, of some experiments in one setting; `results` makes it.

    Four sources stay apart: "paper"; "real" and "synthetic", the recorded runs on draws of real and
    on synthetic people; and "own", the reader's runs.

    Attributes:
        runs: a row per experiment, variant, feature, metric and seed of the own runs. `paper` and
            `own` are in percent, NaN where the paper has no number or the run is `missing`.
            `result` is what the run's result.json holds, None if it is missing. `real` and
            `synthetic` are the configurations of the recorded runs (`recorded.configuration`).
        rows: a row per experiment, variant, feature, metric and source. `value` is a mean in
            percent, `difference` its difference from the reference row (`BASES`) in points, NaN for
            that row itself. Both are paired by seed. Of recorded runs, `low` to `high` is the
            interval of the difference over seeds and people, `runs` the number of pairs, and the
            value is the reference row's mean plus the difference, or the row's own mean where the
            reference row has no such feature. Of own runs, `std` is the deviation over their seeds,
            and `missing` counts seeds that have not been run.
        papers: the data set of the paper's numbers (`papers_dataset`).
    """

    setting: Setting
    runs: pd.DataFrame
    rows: pd.DataFrame
    papers: str

    def shown(self, name: str, features: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one experiment, of `features`; by default of those that it shows."""
        features = features or SHOWN.get(name, ("all",))
        return self.rows.query("experiment == @name and feature in @features")

    def label(self, variant: str) -> str:
        """The name of a row, with the stand-ins of this profile."""
        return label(variant, self.setting.profile)

    @property
    def titles(self) -> dict[str, str]:
        """What the numbers of each source are of."""
        profile = self.setting.profile.name
        data = self.setting.data.name
        return {
            "paper": f"Paper, {DATASETS[self.papers]}",
            "real": f"Recorded, real people ({DATASETS[recorded.SOURCES['real']]}), {profile}",
            "synthetic": f"Recorded, synthetic people, {profile}",
            "own": f"Own run, {DATASETS[data]}, {profile}",
        }

    def dots(self, name: str, features: Sequence[str] | None = None) -> pd.DataFrame:
        """The differences from the reference row, for `plots.differences`.

        Returns `shown` without that row, and `case`, which names the row.
        """
        rows = self.shown(name, features)
        rows = rows[rows["variant"] != BASES[name]]
        case = rows["variant"].map(self.label)
        if rows["feature"].nunique() > 1:
            case = case + ", " + rows["feature"].map(LABELS)
        return rows.assign(case=case)

    def points(self, name: str) -> pd.DataFrame:
        """The rows of Fig. 5 or 6, for `plots.feature_curves` and `difference_curves`.

        Returns `shown` with `depth` and `dim` at the paper's scale, and `here`, D in this profile.
        """
        fusions = {row: asdict(config.fusion) for row, config in CONFIGURATIONS[name].items()}
        points = pd.DataFrame.from_dict(fusions, orient="index")[["depth", "dim"]]
        points["here"] = points["dim"] // self.setting.profile.dim_divisor
        return self.shown(name).join(points, on="variant")


def results(names: str | Sequence[str], setting: Setting) -> Results:
    """What the paper reports and what was measured, of one or several experiments.

    Raises ValueError for an unknown experiment, and for the damaged result of a run.
    """
    names = names_of(names)
    papers = papers_dataset(names, setting.data.name)
    runs = pd.DataFrame([row for name in names for row in _runs(name, setting, papers)])
    known = [_recorded_rows(runs, source) for source in recorded.SOURCES]
    rows = [_given_rows(runs, "paper"), *known, _given_rows(runs, "own")]
    rows = pd.concat(rows, ignore_index=True)
    rows.loc[_is_base(rows), ["difference", "low", "high"]] = math.nan
    return Results(setting, runs, rows, papers)


def _is_base(rows: pd.DataFrame) -> pd.Series:
    """Which rows are of their experiment's reference row."""
    return rows["variant"] == rows["experiment"].map(BASES)


def spread(results: Results, name: str) -> pd.DataFrame:
    """What moves a number of an experiment: other training seeds, other people, other draws.

    Returns a row for each recorded source, for the mAP of all features and for its difference from
    the reference row: `intervals.deviations`, as root mean squares over the rows.
    """
    runs = results.runs.query("experiment == @name and feature == 'all'").set_index("variant")
    moved = []
    for source in recorded.SOURCES:
        configurations = runs[source].drop_duplicates()
        base = configurations.pop(BASES[name])
        for configuration in configurations:
            of_row = {(configuration, "all"): 1.0}
            less_base = of_row | {(base, "all"): -1.0}
            for of, weights in {"mAP": of_row, "difference": less_base}.items():
                moved.append({"source": source, "of": of} | recorded.spread(weights, "mAP"))
    squares = pd.DataFrame(moved).set_index(["source", "of"]) ** 2
    return np.sqrt(squares.groupby(level=[0, 1], sort=False).mean())


def _runs(name: str, setting: Setting, papers: str) -> Iterator[dict]:
    """The rows of `Results.runs` of one experiment."""
    printed = paper.accuracies(name, papers)
    for variant in variants(name):
        configurations = {
            source: recorded.configuration_of(variant.config, setting.profile, source)
            for source in recorded.SOURCES
        }
        for seed in setting.seeds:
            run = setting.run(variant.config, seed)
            result = read_result(run.fingerprint, setting.runs_root)
            accuracies = result["features"] if result else {}
            for feature, metric in product(features_of(variant.config), ACCURACY):
                yield {
                    "experiment": name,
                    "variant": variant.name,
                    "feature": feature,
                    "metric": metric,
                    "seed": seed,
                    "paper": printed.get((variant.name, feature, metric), math.nan),
                    "own": 100 * accuracies.get(feature, {}).get(metric, math.nan),
                    "missing": result is None,
                    "result": result,
                    **configurations,
                }


def _given_rows(runs: pd.DataFrame, source: str) -> pd.DataFrame:
    """The rows of `Results.rows` of the paper or of the own runs."""
    # Differences are taken seed by seed, because a seed that one row lacks says nothing of them.
    keys = ["experiment", "feature", "metric", "seed"]
    of_base = runs[_is_base(runs)].set_index(keys)[source].rename("base")
    runs = runs.join(of_base, on=keys)
    runs["difference"] = runs[source] - runs["base"]
    groups = runs.groupby(ROW, sort=False)
    rows = groups[[source, "difference"]].mean().rename(columns={source: "value"})
    if source == "own":
        rows["std"] = groups[source].std()
        rows["missing"] = groups["missing"].sum()
    return rows.assign(source=source).reset_index()


def _recorded_rows(runs: pd.DataFrame, source: str) -> pd.DataFrame:
    """The rows of `Results.rows` of one of the recorded sources."""
    bases = runs[_is_base(runs)].groupby("experiment")[source].first()
    rows = []
    for row in runs.drop_duplicates(ROW)[[*ROW, source]].to_dict("records"):
        of_row = {(row.pop(source), row["feature"]): 1.0}
        base = (bases[row["experiment"]], row["feature"])
        # Of the reference row itself, which is in both, the interval is that of its mean.
        interval = recorded.contrast({base: -1.0} | of_row, row["metric"])
        value = recorded.contrast({base: 1.0}, row["metric"]).mean
        if math.isnan(value):  # the reference row has no such feature
            value = recorded.contrast(of_row, row["metric"]).mean
        elif base not in of_row:
            value += interval.mean
        rows.append(row | {"source": source, "value": value} | interval._asdict())
    return pd.DataFrame(rows).rename(columns={"mean": "difference"}).drop(columns="p")


def costs(names: Sequence[str] = COSTED) -> pd.DataFrame:
    """Every row of the paper's tables that has costs, beside ours at the paper's scale.

    Returns columns `table`, `name`, `counts` ("model", or "one HTM" where the paper counts one),
    `parameters` and `paper_parameters` (millions), `macs` and `paper_macs` (giga), to the paper's
    convention; `all_parameters` (millions) and `attention_macs` (giga) as in `cost.Cost`, of the
    same count; `misprint`, where the paper's number contradicts its others.
    """
    rows = []
    for name in names:
        printed = paper.costs(name).reindex(list(CONFIGURATIONS[name]))
        for variant in variants(name):
            theirs = printed.loc[variant.name]
            ours = _count(variant.config)
            if theirs["counts"] == "one HTM":
                fusion = variant.config.fusion
                without = replace(variant.config, fusion=replace(fusion, units=()))
                ours = (ours - _count(without)) / fusion.depth
            rows.append(
                {
                    "table": name,
                    "name": variant.name,
                    "counts": theirs["counts"],
                    **ours,
                    "paper_parameters": theirs["parameters"],
                    "paper_macs": theirs["FLOPs"],
                    "misprint": "misprint: parameters" in str(theirs["note"]),
                }
            )
    return pd.DataFrame(rows)


def _count(config: ModelConfig) -> pd.Series:
    """The fields of `cost.Cost`, in millions of parameters and giga multiply-adds."""
    return pd.Series(asdict(measure(config))) / [1e6, 1e9, 1e6, 1e9]
