"""The paper's numbers and ours as plain frames of the same rows, for figures: accuracies (Sec. IV) and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..config import DataConfig, Profile
from ..config import profile as find_profile
from ..models.cost import measure
from . import numbers as paper
from . import results
from .experiments import variants
from .tables import ACCURACY, DATASETS

COSTED = ("table2", "table3", "table4", "table5", "table6")


def papers_dataset(name: str, dataset: str) -> str:
    """Which of the paper's data sets stands beside `dataset`: itself where the paper has it, else MSMT17."""
    return dataset if dataset in set(paper.table(name)["dataset"]) else "msmt17"


def printed(name: str, dataset: str = "msmt17") -> pd.DataFrame:
    """The paper's accuracies of our variants, in percent: index (variant, feature), columns `mAP` and `rank-1`."""
    frame = paper.table(name)
    frame = frame[(frame["variant"] != "") & (frame["dataset"] == papers_dataset(name, dataset))]
    return frame.set_index(["variant", "feature"])[list(ACCURACY)]


def expected(name: str, profile: str | Profile = "demo", **options) -> pd.DataFrame:
    """What there is to run for an experiment, and what the paper reports of it, a row per variant and seed.

    Args:
        name, profile, options: as those of `results.rows`.

    Returns:
        Columns `experiment`, `row`, `paper mAP` and `paper rank-1` (percent, by f_a; NaN: not printed), `paper data`
        (on which data set), `seed`, `run` (its folder) and `ours mAP` (percent; NaN: not run).
    """
    data = results.data_of(find_profile(profile), options.get("dataset"))
    measured = results.rows(name, profile, features=("all",), **options)
    theirs = printed(name, data.name).xs("all", level="feature").reindex(measured["variant"])
    return pd.DataFrame({
        "experiment": name,
        "row": measured["variant"],
        **{f"paper {metric}": theirs[metric].to_numpy() for metric in ACCURACY},
        "paper data": papers_dataset(name, data.name),
        "seed": measured["seed"],
        "run": measured["fingerprint"],
        "ours mAP": measured["mAP"].round(1),
    })  # fmt: skip


def bars(
    name: str,
    profile: str | Profile = "demo",
    *,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
    feature: str = "all",
) -> dict:
    """The arguments of `plots.component_bars`: both sides' rows, and what they are.

    Returns:
        `ours` and `paper`: a row per variant in the paper's order, columns `name`, `mAP`, `rank-1` in percent (ours:
        the mean over the seeds), NaN where not run or not printed; `ours_title`, `paper_title`.
    """
    scale = find_profile(profile)
    data = results.data_of(scale, dataset)
    options = dict(dataset=dataset, seeds=tuple(seeds), runs_root=runs_root, features=(feature,))
    measured = results.collect(name, profile, **options).set_index("variant")[list(ACCURACY)]
    theirs, names = printed(name, data.name), [variant.name for variant in variants(name)]
    theirs = theirs.reindex([(variant, feature) for variant in names]).droplevel("feature")
    return {
        "ours": measured.reindex(names).rename_axis("name").reset_index(),
        "paper": theirs.rename_axis("name").reset_index(),
        "ours_title": f"Ours, {DATASETS[data.name]} ({scale.name})",
        "paper_title": f"Paper, {DATASETS[papers_dataset(name, data.name)]}",
    }


def pairs(
    profile: str | Profile = "demo",
    *,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
    measure: str = "mAP",
) -> pd.DataFrame:
    """Table VI for `plots.backbone_pairs`: a row per pair of backbones and feature.

    Returns:
        Columns `pair`, `feature` ("cnn" and "transformer" are the backbones alone, as trained alone), `paper` and
        `ours` (percent, the mean over the seeds).
    """
    options = dict(dataset=dataset, seeds=tuple(seeds), runs_root=runs_root)
    measured = results.collect("table6", profile, **options).set_index(["variant", "feature"])[measure]
    data = results.data_of(find_profile(profile), dataset)
    theirs, found = printed("table6", data.name)[measure], []
    for pair in (variant.name for variant in variants("table6") if " + " in variant.name):
        cnn, transformer = pair.split(" + ")
        rows = {"cnn": (cnn, "all"), "transformer": (transformer, "all")}
        rows |= {feature: (pair, feature) for feature in ("cnn_fused", "transformer_fused", "all")}
        found += [
            {"pair": pair, "feature": feature, "paper": theirs.get(row), "ours": measured.get(row)}
            for feature, row in rows.items()
        ]
    return pd.DataFrame(found)


def costs(names: Sequence[str] = COSTED) -> pd.DataFrame:
    """Every row of the paper's tables that has costs, beside ours at the paper's scale.

    Returns:
        Columns `table`, `name`, `counts` ("model", or "one HTM" where the paper counts one), `parameters` and
        `paper_parameters` (millions), `macs` and `paper_macs` (giga), to the paper's convention; `all_parameters`
        (millions), `attention_macs` (giga) as in `cost.Cost`, of the same count; `misprint` (the
        paper's number contradicts its others) and `note`.
    """
    rows = []
    for name in names:
        theirs = (
            paper.table(name)
            .groupby("variant", sort=False)
            .agg({"parameters": "first", "FLOPs": "first", "counts": "first", "note": "; ".join})
        )
        for variant in variants(name):
            reported, ours = theirs.loc[variant.name], vars(measure(variant.config))
            if reported["counts"] == "one HTM":
                fusion = variant.config.fusion
                without = vars(measure(replace(variant.config, fusion=replace(fusion, units=()))))
                ours = {key: (value - without[key]) / fusion.depth for key, value in ours.items()}
            rows.append({
                "table": name, "name": variant.name, "counts": reported["counts"],
                "parameters": ours["parameters"] / 1e6, "paper_parameters": reported["parameters"],
                "macs": ours["macs"] / 1e9, "paper_macs": reported["FLOPs"],
                "all_parameters": ours["all_parameters"] / 1e6, "attention_macs": ours["attention_macs"] / 1e9,
                "misprint": "misprint: parameters" in reported["note"], "note": reported["note"].strip("; "),
            })  # fmt: skip
    return pd.DataFrame(rows)
