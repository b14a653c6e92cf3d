"""The paper's numbers meet ours here, and nowhere else: what tables, claims and curves show.

Ours are the recorded runs (`recorded`) and the reader's own. What has not been run is a gap in a
frame, not an error.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
import pandas as pd

from ..config import DATASETS, FEATURES, LABELS, ModelConfig, Profile
from ..models.cost import measure
from ..training.runs import read_result
from . import numbers as paper
from . import recorded
from .experiments import Setting, names_of, variants
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
# Which features an experiment shows. All others show "all", the features side by side.
SHOWN = {"table6": ("cnn_fused", "transformer_fused", "all"), "figure5": (*FEATURES, "all")}


def features_of(config: ModelConfig) -> list[str]:
    """The features that a model has, "all" last."""
    if config.cnn is None:
        return ["transformer", "all"]
    if config.transformer is None:
        return ["cnn", "all"]
    if config.fusion is None:
        return [*FEATURES[:2], "all"]
    if not config.fusion.units:
        return [*FEATURES[:4], "all"]
    return [*FEATURES, "all"]


def papers_dataset(name: str, dataset: str) -> str:
    """The paper's data set beside `dataset`: itself, or MSMT17 if the paper has not measured it."""
    if dataset in set(paper.table(name)["dataset"]):
        return dataset
    return "msmt17"


@dataclass(frozen=True)
class Results:
    """The paper's numbers beside ours, of some experiments in one setting; `results` makes it.

    Attributes:
        runs: a row per experiment, variant, feature, metric and seed. `paper` and `ours` are in
            percent, NaN where the paper has no number or the run is `missing`. `result` is what
            the run's result.json holds, None if it is missing; `configuration` see `recorded`.
        rows: a row per experiment, variant, feature and metric. `paper`, `recorded` and `ours` are
            means in percent. Those recorded are over the runs that all rows of the experiment have,
            because draws of people differ. `paper_less`, `recorded_less` and `ours_less` are
            differences from the reference row (`BASES`) in points, NaN for that row itself; `low`
            to `high` is the interval of `recorded_less` over seeds and people. `runs` counts
            recorded runs, or pairs of them for a difference. `std` is the deviation of `ours` over
            its seeds, and `missing` counts seeds that have not been run.
    """

    setting: Setting
    runs: pd.DataFrame
    rows: pd.DataFrame

    def shown(self, name: str, features: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of one experiment, of `features`; by default of those that it shows."""
        features = features or SHOWN.get(name, ("all",))
        return self.rows.query("experiment == @name and feature in @features")

    def titles(self, name: str) -> dict[str, str]:
        """What "paper", "recorded" and "ours", the reader's own run, are numbers of."""
        data = self.setting.data.name
        ours = f"{DATASETS[data]} ({self.setting.profile.name})"
        return {
            "paper": f"Paper, {DATASETS[papers_dataset(name, data)]}",
            "recorded": f"Recorded, {ours}",
            "ours": f"Own run, {ours}",
        }

    def dots(self, name: str, features: Sequence[str] | None = None) -> pd.DataFrame:
        """The differences from the reference row, for `plots.differences`.

        Returns `shown` without that row. `case` names the row, and `paper`, `recorded` and `ours`
        are the differences in points.
        """
        rows = self.shown(name, features)
        rows = rows[rows["variant"] != BASES[name]]
        case = rows["variant"]
        if rows["feature"].nunique() > 1:
            case = case + ", " + rows["feature"].map(LABELS)
        return rows.assign(
            case=case,
            paper=rows["paper_less"],
            recorded=rows["recorded_less"],
            ours=rows["ours_less"],
        )

    def curves(self, name: str) -> dict[str, pd.DataFrame]:
        """Fig. 5 or 6 for `plots.accuracy_curves`, by "paper", "recorded" and "ours".

        Each has a row per point, feature and seed or recorded run. Columns: `variant`, `depth` and
        `dim` at the paper's scale, of ours `here` (D in this profile), `feature`, `mAP` and
        `rank-1` in percent. What has not been run is left out.
        """
        shown = set(self.shown(name)["feature"])
        runs = self.runs[(self.runs["experiment"] == name) & self.runs["feature"].isin(shown)]
        points = [asdict(each.config.fusion) | {"variant": each.name} for each in variants(name)]
        points = pd.DataFrame(points)[["depth", "dim", "variant"]]
        points["here"] = points["dim"] // self.setting.profile.dim_divisor
        runs = points.merge(runs)
        point = [*points, "feature", "configuration"]
        sides = {}
        for side in ("paper", "ours"):
            values = runs.pivot(index=[*point, "seed"], columns="metric", values=side)
            sides[side] = values.dropna().reset_index()
        sides["paper"] = sides["paper"].drop(columns="here")
        rows = recorded.archive().rows[["configuration", "feature", "seed", *ACCURACY]]
        sides["recorded"] = runs[point].drop_duplicates().merge(rows)
        return sides


def results(names: str | Sequence[str], setting: Setting) -> Results:
    """What the paper reports and what was measured, of one or several experiments.

    Raises ValueError for an unknown experiment, and for the damaged result of a run.
    """
    runs = []
    rows = []
    for name in names_of(names):
        runs.append(pd.DataFrame(_runs(name, setting)))
        rows.append(_rows(runs[-1], BASES[name]))
    return Results(setting, pd.concat(runs, ignore_index=True), pd.concat(rows, ignore_index=True))


def _runs(name: str, setting: Setting) -> Iterator[dict]:
    """The rows of `Results.runs` of one experiment."""
    printed = paper.accuracies(name, papers_dataset(name, setting.data.name))
    for variant, seed in product(variants(name), setting.seeds):
        run = setting.run(variant.config, seed)
        result = read_result(run.fingerprint, setting.runs_root)
        accuracies = result["features"] if result else {}
        configuration = recorded.configuration(run)
        for feature, metric in product(features_of(variant.config), ACCURACY):
            yield {
                "experiment": name,
                "variant": variant.name,
                "feature": feature,
                "metric": metric,
                "seed": seed,
                "paper": printed.get((variant.name, feature, metric), math.nan),
                "ours": 100 * accuracies.get(feature, {}).get(metric, math.nan),
                "missing": result is None,
                "configuration": configuration,
                "result": result,
            }


def _rows(runs: pd.DataFrame, base: str) -> pd.DataFrame:
    """The rows of `Results.rows` of one experiment, from those of `Results.runs`."""
    # Differences are taken seed by seed, because a seed that one row lacks says nothing of them.
    keys = ["feature", "metric", "seed"]
    of_base = runs[runs["variant"] == base].set_index(keys)[["paper", "ours"]]
    runs = runs.join(of_base.add_suffix("_base"), on=keys)
    runs = runs.eval("""
        paper_less = paper - paper_base
        ours_less = ours - ours_base
    """)
    keys = ["configuration", "feature", "metric"]
    groups = runs.groupby(["experiment", "variant", *keys], sort=False)
    rows = groups[["paper", "paper_less", "ours", "ours_less"]].mean()
    rows["std"] = groups["ours"].std()
    rows["missing"] = groups["missing"].sum()
    rows = rows.reset_index()

    shared = recorded.shared_rows(rows["configuration"])
    means = shared.groupby(["configuration", "feature"])[[*ACCURACY]].agg(np.mean)
    means = means.stack().rename("recorded").rename_axis(keys)
    rows = rows.join(means, on=keys)
    is_base = rows["variant"] == base
    base_configuration = rows.loc[is_base, "configuration"].iloc[0]
    intervals = []
    for configuration, feature, metric in rows[keys].itertuples(index=False):
        # For the reference row itself both are one term of weight 1, which is blanked below.
        weights = {(base_configuration, feature): -1.0, (configuration, feature): 1.0}
        intervals.append(recorded.contrast(weights, metric))
    rows = rows.join(pd.DataFrame(intervals).rename(columns={"mean": "recorded_less"}))
    less = ["paper_less", "recorded_less", "ours_less", "low", "high"]
    rows.loc[is_base, less] = math.nan
    return rows


def costs(names: Sequence[str] = COSTED, profile: Profile | None = None) -> pd.DataFrame:
    """Every row of the paper's tables that has costs, beside ours.

    Ours are at the paper's scale, or at a profile's. Returns columns `table`, `name`, `counts`
    ("model", or "one HTM" where the paper counts one), `parameters` and `paper_parameters`
    (millions), `macs` and `paper_macs` (giga), to the paper's convention; `all_parameters`
    (millions) and `attention_macs` (giga) as in `cost.Cost`, of the same count; `misprint`, where
    the paper's number contradicts its others.
    """
    rows = []
    for name in names:
        printed = paper.costs(name).reindex([variant.name for variant in variants(name)])
        for variant in variants(name):
            counts = "model"
            ours = _count(variant.config, profile)
            if name in ("table3", "table4"):
                counts = "one HTM"
                fusion = variant.config.fusion
                without = replace(variant.config, fusion=replace(fusion, units=()))
                ours = (ours - _count(without, profile)) / fusion.depth
            theirs = printed.loc[variant.name]
            rows.append(
                {
                    "table": name,
                    "name": variant.name,
                    "counts": counts,
                    **ours,
                    "paper_parameters": theirs["parameters"],
                    "paper_macs": theirs["FLOPs"],
                    "misprint": "misprint: parameters" in str(theirs["note"]),
                }
            )
    return pd.DataFrame(rows)


def _count(config: ModelConfig, profile: Profile | None) -> pd.Series:
    """The fields of `cost.Cost`, in millions of parameters and giga multiply-adds."""
    cost = measure(profile.scale(config) if profile else config)
    return pd.Series(asdict(cost)) / [1e6, 1e9, 1e6, 1e9]
