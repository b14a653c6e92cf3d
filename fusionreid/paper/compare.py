"""The paper's numbers meet ours here, and nowhere else: tidy frames, from which tables, claims and curves are made.

Ours are the recorded runs (`recorded`) and the reader's own. What has not been run is a gap in a frame, not an error.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ..config import DATASETS, FEATURES, LABELS, ModelConfig, Profile
from ..models.cost import measure
from ..training.runs import read_result
from . import numbers as paper
from . import recorded
from .experiments import Setting, variants

ACCURACY = ("mAP", "rank-1")
COSTED = ("table2", "table3", "table4", "table5", "table6")
# The row that differences are from: the full model, or what it is built on.
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
# Which features an experiment shows; every other one shows "all", the features side by side.
SHOWN = {"table6": ("cnn_fused", "transformer_fused", "all"), "figure5": (*FEATURES, "all")}


def features_of(config: ModelConfig) -> list[str]:
    """The features that a model has, "all" last."""
    stages = 1 if config.fusion is None else 3 if config.fusion.units else 2
    return [name for name in FEATURES[: 2 * stages] if getattr(config, name.split("_")[0])] + [
        "all"
    ]


def papers_dataset(name: str, dataset: str) -> str:
    """Which of the paper's data sets stands beside `dataset`: itself where the paper has it, else MSMT17."""
    return (
        dataset
        if name in paper.TABLES and dataset in set(paper.table(name)["dataset"])
        else "msmt17"
    )


def frame(
    names: str | Sequence[str], setting: Setting, features: Sequence[str] | None = None
) -> pd.DataFrame:
    """What the paper reports and what was measured, of experiments and by default the features that they show.

    Returns a row per experiment, variant, feature, metric and seed. Columns: these; `paper` and `ours` (percent; NaN:
    the paper has none, the run is missing) and `missing`; of the run `fingerprint`, `configuration` (see `recorded`),
    `depth` and `dim` (NaN without fusion), `commit`, `device` and `version` of the data ("" if missing). A damaged
    result is a ValueError.
    """
    rows = []
    for name in [names] if isinstance(names, str) else names:
        printed = paper.accuracies(name, papers_dataset(name, setting.data.name))
        for variant in variants(name):
            shown = [
                each
                for each in features or SHOWN.get(name, ("all",))
                if each in features_of(variant.config)
            ]
            for seed in setting.seeds:
                run = setting.run(variant.config, seed)
                result = read_result(run.fingerprint, setting.runs_root)
                found, fusion = result or {}, run.model.fusion
                about = {
                    "seed": seed,
                    "missing": result is None,
                    "fingerprint": run.fingerprint,
                    "configuration": recorded.configuration(run),
                    "depth": fusion.depth if fusion else math.nan,
                    "dim": fusion.dim if fusion else math.nan,
                    "commit": found.get("commit", ""),
                    "device": found.get("device", ""),
                    "version": found.get("data", {}).get("version", ""),
                }
                for feature in shown:
                    accuracy = found.get("features", {}).get(feature, {})
                    for metric in ACCURACY:
                        rows.append({
                            "experiment": name, "variant": variant.name, "feature": feature, "metric": metric,
                            "paper": printed.get((variant.name, feature, metric), math.nan),
                            "ours": 100 * accuracy.get(metric, math.nan), **about,
                        })  # fmt: skip
    return pd.DataFrame(rows)


def differences(
    names: str | Sequence[str], setting: Setting, features: Sequence[str] | None = None
) -> pd.DataFrame:
    """The rows of `frame`, means over the seeds, each beside its recorded runs and less its reference row (`BASES`).

    Returns a row per experiment, variant, feature and metric. Columns: these; `paper`, `recorded` and `ours` (percent;
    recorded are means of those runs that all rows of the experiment have, as draws of people differ); `paper_less`,
    `recorded_less` and `ours_less` (points; NaN for the reference row itself); `low` and `high`, the 95 % interval of
    `recorded_less` over seeds and people; `runs` (pairs of recorded runs; of the reference row, runs) and `alike` (see
    `intervals.Interval`); `std` of ours over its seeds and `missing` (seeds that are not run); `configuration` (see
    `recorded`).
    """
    measured = frame(names, setting, features)
    base = measured[measured["variant"] == measured["experiment"].map(BASES)]
    where = ["experiment", "feature", "metric", "seed"]
    joined = measured.join(base.set_index(where)[["paper", "ours"]].add_suffix("_base"), on=where)
    for side in ("paper", "ours"):  # seed by seed, where both rows have been run
        less = joined[side] - joined[f"{side}_base"]
        joined[f"{side}_less"] = less.where(joined["variant"] != joined["experiment"].map(BASES))
    groups = joined.groupby(
        ["experiment", "variant", "feature", "metric", "configuration"], sort=False
    )
    found = groups[["paper", "paper_less", "ours", "ours_less"]].mean()
    found["std"], found["missing"] = groups["ours"].std(), groups["missing"].sum()
    found, rows = found.reset_index(), []
    references = base.groupby("experiment")["configuration"].first()
    shared = found.groupby("experiment")["configuration"].agg(recorded.shared_runs)
    for row in found.itertuples():
        values, reference = (
            recorded.of(row.configuration, row.feature)[row.metric],
            references[row.experiment],
        )
        alike = values[values.index.isin(shared[row.experiment])]
        rows.append({"recorded": (values if alike.empty else alike).mean(), "runs": len(values)})
        if row.configuration != reference:
            weights = {(row.configuration, row.feature): 1.0, (reference, row.feature): -1.0}
            less = recorded.contrast(weights, row.metric)
            rows[-1] |= less._asdict() | {"recorded_less": less.mean}
    return found.join(
        pd.DataFrame(rows, columns=["recorded", "recorded_less", "low", "high", "runs", "alike"])
    )


def titles(name: str, setting: Setting) -> dict[str, str]:
    """What the numbers of each side are: "paper", "recorded" and "ours", the reader's own run."""
    ours = f"{DATASETS[setting.data.name]} ({setting.profile.name})"
    paper_title = f"Paper, {DATASETS[papers_dataset(name, setting.data.name)]}"
    return {"paper": paper_title, "recorded": f"Recorded, {ours}", "ours": f"Own run, {ours}"}


def dots(name: str, setting: Setting, features: Sequence[str] | None = None) -> pd.DataFrame:
    """`differences` for `plots.differences`: of each row but the reference, `case`, `metric` and points."""
    found = differences(name, setting, features)
    found = found[found["variant"] != BASES[name]]
    several = found["feature"].nunique() > 1
    cases = found["variant"] + (", " + found["feature"].map(LABELS) if several else "")
    return found.assign(
        case=cases, **{side: found[f"{side}_less"] for side in ("paper", "recorded", "ours")}
    )


def decides(names: Sequence[str], setting: Setting) -> pd.DataFrame:
    """What the recorded seeds can decide, and cannot: half the width of the intervals of `differences`, in points.

    A difference of half the interval's width is found half of the time, a smaller one less often. Returns a row per
    experiment and metric: `half width` (median), `widest`, the `paper`'s differences (their median size), `rows`, how
    many of them are `decided` (their interval leaves zero out), and how many are `uneven`: their data seeds differ by
    more than chance at 5 %.
    """
    found = differences(names, setting).dropna(subset=["low", "high"])
    half, paper_size = (found["high"] - found["low"]) / 2, found["paper_less"].abs()
    decided, uneven = found["low"] * found["high"] > 0, found["alike"] < 0.05
    found = found.assign(half=half, paper=paper_size, decided=decided, uneven=uneven)
    groups = found.groupby(["experiment", "metric"], sort=False)
    columns = {
        "half width": groups["half"].median(),
        "widest": groups["half"].max(),
        "paper": groups["paper"].median(),
    }
    return pd.DataFrame(
        columns | {"rows": groups.size()} | dict(groups[["decided", "uneven"]].sum())
    )


def curves(name: str, setting: Setting) -> dict[str, pd.DataFrame]:
    """Fig. 5 or 6 for `plots.accuracy_curves`, by "paper", "recorded" and "ours".

    Each has a row per point, feature and seed or recorded run: columns `variant`, `depth` and `dim` at the paper's
    scale, of ours `here` (D in this profile), `feature`, `mAP` and `rank-1` in percent. What has not been run is left
    out.
    """
    measured = frame(name, setting).rename(columns={"dim": "here"}).drop(columns="depth")
    fusions = {each.name: each.config.fusion for each in variants(name)}
    for field in ("depth", "dim"):  # at the paper's scale
        measured[field] = [getattr(fusions[variant], field) for variant in measured["variant"]]
    point = ["depth", "dim", "variant", "here", "feature", "configuration"]
    sides = {
        side: measured.pivot(index=[*point, "seed"], columns="metric", values=side)
        .dropna()
        .reset_index()
        for side in ("paper", "ours")
    }
    sides["paper"] = sides["paper"].drop(columns="here")
    rows = recorded.load().rows[["configuration", "feature", "seed", *ACCURACY]]
    sides["recorded"] = (
        measured[point].drop_duplicates().merge(rows, on=["configuration", "feature"])
    )
    return sides


def published() -> pd.DataFrame:
    """Table I as printed, the other methods too, by (variant, feature); columns (group, measure)."""
    theirs = paper.table("table1")
    arrows, stars = theirs["resolution"].map({"384x128": " ↑"}), theirs["overlap"].map({"yes": "*"})
    theirs["variant"] = theirs["variant"].where(
        theirs["variant"] != "", theirs["method"] + arrows.fillna("")
    )
    theirs["backbone"] += stars.fillna("")
    rows = theirs.groupby(["variant", "feature"], sort=False)
    columns = {("", word): rows[word].first() for word in ("backbone", "pattern")}
    for dataset, part in theirs.set_index(["variant", "feature"]).groupby("dataset", sort=False):
        columns |= {(f"Paper, {DATASETS[dataset]}", metric): part[metric] for metric in ACCURACY}
    return pd.DataFrame(columns)


def costs(names: Sequence[str] = COSTED, profile: Profile | None = None) -> pd.DataFrame:
    """Every row of the paper's tables that has costs, beside ours at the paper's scale, or at a profile's.

    Returns columns `table`, `name`, `counts` ("model", or "one HTM" where the paper counts one), `parameters` and
    `paper_parameters` (millions), `macs` and `paper_macs` (giga), to the paper's convention; `all_parameters`
    (millions) and `attention_macs` (giga) as in `cost.Cost`, of the same count; `misprint` (the paper's number
    contradicts its others) and `note`.
    """
    units = {"parameters": 1e6, "macs": 1e9, "all_parameters": 1e6, "attention_macs": 1e9}

    def count(config: ModelConfig) -> pd.Series:
        cost = measure(profile.scale(config) if profile else config)
        return pd.Series({key: getattr(cost, key) / unit for key, unit in units.items()})

    rows = []
    for name in names:
        one = name in ("table3", "table4")
        printed = (
            paper.costs(name)
            .reindex([variant.name for variant in variants(name)])
            .fillna({"note": ""})
        )
        for variant in variants(name):
            ours, fusion, theirs = (
                count(variant.config),
                variant.config.fusion,
                printed.loc[variant.name],
            )
            if one:
                without = count(replace(variant.config, fusion=replace(fusion, units=())))
                ours = (ours - without) / fusion.depth
            rows.append({
                "table": name, "name": variant.name, "counts": "one HTM" if one else "model", **ours,
                "paper_parameters": theirs["parameters"], "paper_macs": theirs["FLOPs"],
                "misprint": "misprint: parameters" in theirs["note"], "note": theirs["note"],
            })  # fmt: skip
    return pd.DataFrame(rows)
