"""The paper's numbers meet ours here, and nowhere else: one tidy frame, from which tables, claims and curves are made.

A run that has not finished is a gap in the frame, not an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from ..config import DATASETS, FEATURES, ModelConfig, Profile
from ..models.cost import measure
from ..training.runs import read_result
from . import numbers as paper
from .experiments import Setting, variants

ACCURACY = ("mAP", "rank-1")
COSTED = ("table2", "table3", "table4", "table5", "table6")
# Which features an experiment shows; every other one shows "all", the features side by side.
SHOWN = {"table6": ("cnn_fused", "transformer_fused", "all"), "figure5": (*FEATURES, "all")}


def features_of(config: ModelConfig) -> list[str]:
    """The features that a model has, "all" last."""
    stages = 1 if config.fusion is None else 3 if config.fusion.units else 2
    return [name for name in FEATURES[: 2 * stages] if getattr(config, name.split("_")[0])] + ["all"]


def papers_dataset(name: str, dataset: str) -> str:
    """Which of the paper's data sets stands beside `dataset`: itself where the paper has it, else MSMT17."""
    return dataset if name in paper.TABLES and dataset in set(paper.table(name)["dataset"]) else "msmt17"


def frame(names: str | Sequence[str], setting: Setting, features: Sequence[str] | None = None) -> pd.DataFrame:
    """What the paper reports and what was measured, of experiments and by default the features that they show.

    Returns:
        A row per experiment, variant, feature, metric and seed. Columns: these; `paper` and `ours` (percent; NaN: the
        paper has none, the run is missing) and `missing`; of the run `fingerprint`, `depth` and `dim` (NaN without
        fusion), `commit`, `device` and `version` of the data ("" if missing). A damaged result is a ValueError.
    """
    rows = []
    for name in [names] if isinstance(names, str) else names:
        dataset = papers_dataset(name, setting.data.name)
        for variant in variants(name):
            shown = [each for each in features or SHOWN.get(name, ("all",)) if each in features_of(variant.config)]
            for seed in setting.seeds:
                run = setting.run(variant.config, seed)
                result = read_result(run.fingerprint, setting.runs_root)
                found, fusion = result or {}, run.model.fusion
                about = {
                    "seed": seed,
                    "missing": result is None,
                    "fingerprint": run.fingerprint,
                    "depth": fusion.depth if fusion else math.nan,
                    "dim": fusion.dim if fusion else math.nan,
                    "commit": found.get("commit", ""),
                    "device": found.get("device", ""),
                    "version": found.get("data", {}).get("version", ""),
                }
                for feature in shown:
                    accuracy = found.get("features", {}).get(feature, {})
                    for metric in ACCURACY:
                        theirs = variant.reported.get(paper.key(name, dataset, feature, metric), math.nan)
                        rows.append({
                            "experiment": name, "variant": variant.name, "feature": feature, "metric": metric,
                            "paper": theirs, "ours": 100 * accuracy.get(metric, math.nan), **about,
                        })  # fmt: skip
    return pd.DataFrame(rows)


def titles(name: str, setting: Setting) -> tuple[str, str]:
    """What the numbers of each side are: ours, and the paper's."""
    ours = f"Ours, {DATASETS[setting.data.name]} ({setting.profile.name})"
    return ours, f"Paper, {DATASETS[papers_dataset(name, setting.data.name)]}"


def listing(name: str, setting: Setting) -> pd.DataFrame:
    """What there is to run for an experiment, and what the paper reports of it, a row per variant and seed."""
    found = frame(name, setting, ("all",))
    first, rank = (found[found["metric"] == metric].reset_index(drop=True) for metric in ACCURACY)
    return pd.DataFrame({
        "experiment": name,
        "row": first["variant"],
        "paper mAP": first["paper"],
        "paper rank-1": rank["paper"],
        "paper data": papers_dataset(name, setting.data.name),
        "seed": first["seed"],
        "run": first["fingerprint"],
        "ours mAP": first["ours"].round(1),
    })  # fmt: skip


def bars(name: str, setting: Setting) -> dict:
    """The arguments of `plots.component_bars`: the rows of both sides in percent, means over the seeds, and titles."""
    means = frame(name, setting, ("all",)).pivot_table(
        index="variant", columns="metric", values=["paper", "ours"], dropna=False, sort=False
    )
    sides = {side: means[side].rename_axis(index="name", columns=None).reset_index() for side in ("ours", "paper")}
    return sides | dict(zip(("ours_title", "paper_title"), titles(name, setting), strict=True))


def pairs(setting: Setting, metric: str = "mAP") -> pd.DataFrame:
    """Table VI for `plots.backbone_pairs`: a row per pair of backbones and feature, in percent, means over the seeds.

    Of the features "cnn" and "transformer" are the backbones as trained alone.
    """
    found = frame("table6", setting)
    means = found[found["metric"] == metric].groupby(["variant", "feature"])[["paper", "ours"]].mean()
    rows = []
    for pair in (variant.name for variant in variants("table6") if " + " in variant.name):
        cnn, transformer = pair.split(" + ")
        sources = {"cnn": (cnn, "all"), "transformer": (transformer, "all")}
        sources |= {feature: (pair, feature) for feature in SHOWN["table6"]}
        rows += [{"pair": pair, "feature": feature, **means.loc[source]} for feature, source in sources.items()]
    return pd.DataFrame(rows)


def published() -> pd.DataFrame:
    """Table I as printed, the other methods too, by (variant, feature); columns (group, measure)."""
    theirs = paper.table("table1")
    arrows, stars = theirs["resolution"].map({"384x128": " ↑"}), theirs["overlap"].map({"yes": "*"})
    theirs["variant"] = theirs["variant"].where(theirs["variant"] != "", theirs["method"] + arrows.fillna(""))
    theirs["backbone"] += stars.fillna("")
    rows = theirs.groupby(["variant", "feature"], sort=False)
    columns = {("", word): rows[word].first() for word in ("backbone", "pattern")}
    for dataset, part in theirs.set_index(["variant", "feature"]).groupby("dataset", sort=False):
        columns |= {(f"Paper, {DATASETS[dataset]}", metric): part[metric] for metric in ACCURACY}
    return pd.DataFrame(columns)


def costs(names: Sequence[str] = COSTED, profile: Profile | None = None) -> pd.DataFrame:
    """Every row of the paper's tables that has costs, beside ours at the paper's scale, or at a profile's.

    Returns:
        Columns `table`, `name`, `counts` ("model", or "one HTM" where the paper counts one), `parameters` and
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
        for variant in variants(name):
            ours, fusion = count(variant.config), variant.config.fusion
            if one:
                without = count(replace(variant.config, fusion=replace(fusion, units=())))
                ours = (ours - without) / fusion.depth
            rows.append({
                "table": name, "name": variant.name, "counts": "one HTM" if one else "model", **ours,
                **{f"paper_{key}": variant.reported.get(f"htm/{key}" if one else key, math.nan)
                   for key in ("parameters", "macs")},
                "misprint": "misprint: parameters" in variant.note, "note": variant.note,
            })  # fmt: skip
    return pd.DataFrame(rows)
