"""What was measured: one run's record, and one tidy table of all runs.

A run's folder `runs/<fingerprint>/` holds config.json, environment.json, metrics.jsonl and, once it is finished,
result.json. A folder without result.json is a run in progress or interrupted: a gap in every table, not an error.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pandas as pd

from .. import paths
from ..config import FEATURES, PROFILES, DataConfig, ModelConfig, Profile
from ..config import profile as find_profile
from ..files import read_json
from ..training.runs import make_run

METRICS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP", "mAP_trapezoid")
# Which features' accuracy an experiment shows; in every other one it is f_a, all features side by side.
SHOWN = {"table6": ("cnn_fused", "transformer_fused", "all"), "figure5": (*FEATURES, "all")}
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")


def read(fingerprint: str, runs_root: str | Path | None = None) -> dict | None:
    """The result of one run, None if it has not finished.

    Returns:
        result.json: `fingerprint`, `data` (`name`, `version`), `seed`, `commit`, `device`, `seconds` and `features`,
        {feature: {metric: fraction of 1}}.

    Raises:
        ValueError: the file is damaged or is another run's; the message names it.
    """
    path = Path(runs_root or paths.RUNS) / fingerprint / "result.json"
    if not path.exists():
        return None
    remedy = f"delete {path} to have it measured again"
    try:
        result = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    if not isinstance(result, dict) or result.get("fingerprint") != fingerprint:
        found = result.get("fingerprint") if isinstance(result, dict) else type(result).__name__
        raise ValueError(f"{path}: expected the result of run {fingerprint}, found {found!r}; {remedy}")
    missing = [key for key in ("data", "seed", "features") if key not in result]
    if missing:
        raise ValueError(f"{path}: expected the keys data, seed and features, missing {missing}; {remedy}")
    features = result["features"]
    if not isinstance(features, dict) or "all" not in features:
        raise ValueError(f"{path}: expected the feature 'all' in `features`, found {features!r}; {remedy}")
    for feature, metrics in features.items():
        for metric, value in metrics.items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{path}: expected {feature}/{metric} as a fraction of 1, found {value!r}; {remedy}")
    return result


def load(runs_root: str | Path | None = None) -> pd.DataFrame:
    """One tidy table of all finished runs, a row per run, feature and metric.

    Returns:
        Columns `fingerprint`, `profile` ("" where the training is no profile's), `dataset`, `version`, `seed`,
        `commit`, `device`, `seconds`, `feature`, `metric`, `value` (a fraction of 1). Empty where nothing has run.

    Raises:
        ValueError: a run's file is damaged; the message names it.
    """
    rows = []
    for folder in sorted(Path(runs_root or paths.RUNS).glob("*")):
        if not _FINGERPRINT.fullmatch(folder.name):
            continue
        result = read(folder.name, runs_root)
        if result is None:
            continue
        config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
        run = {
            "fingerprint": folder.name,
            "profile": _profile_name(config),
            "dataset": result["data"]["name"],
            "version": result["data"].get("version", ""),
            **{key: result.get(key) for key in ("seed", "commit", "device", "seconds")},
        }
        for feature, metrics in result["features"].items():
            rows += [{**run, "feature": feature, "metric": metric, "value": value} for metric, value in metrics.items()]
    columns = ["fingerprint", "profile", "dataset", "version", "seed", "commit", "device", "seconds"]
    return pd.DataFrame(rows, columns=[*columns, "feature", "metric", "value"])


def _profile_name(config: dict) -> str:
    """The profile that a run's config.json was made by: its training is the profile's."""
    train = config.get("train")
    return next((name for name, known in PROFILES.items() if json.loads(json.dumps(vars(known.train))) == train), "")


def data_of(scale: Profile, dataset: str | DataConfig | None) -> DataConfig:
    """The data of an experiment: the profile's own, or a data set by name at the profile's size."""
    if isinstance(dataset, DataConfig):
        return dataset
    return DataConfig(name=dataset or scale.data.name, size=scale.data.size, seed=scale.data.seed)


def features_of(config: ModelConfig) -> list[str]:
    """The features that a model has, "all" last."""
    stages = [""]
    if config.fusion is not None:
        stages += ["_refined"] + ["_fused"] * bool(config.fusion.units)
    branches = [name for name in ("cnn", "transformer") if getattr(config, name) is not None]
    return [branch + stage for stage in stages for branch in branches] + ["all"]


def rows(
    name: str,
    profile: str | Profile = "demo",
    *,
    dataset: str | DataConfig | None = None,
    seeds: tuple[int, ...] = (0,),
    runs_root: str | Path | None = None,
    features: tuple[str, ...] | None = None,
) -> pd.DataFrame:
    """What was measured for an experiment, a row per variant, feature and seed.

    Args:
        name: "table1" to "figure6".
        profile: its name ("smoke", "demo", "paper"), or a `Profile` of your own.
        features: which; by default those that the experiment shows (`SHOWN`), else "all".

    Returns:
        Columns `variant`, `feature`, `seed`, `fingerprint`, `depth` and `dim` of the fusion as it was run (NaN without
        one), the METRICS in percent (NaN where the run is missing), `commit`, `device` and `version`.
    """
    from .experiments import variants

    scale = find_profile(profile)
    data = data_of(scale, dataset)
    shown = features or SHOWN.get(name, ("all",))
    found = []
    for variant in variants(name):
        for seed in seeds:
            run = make_run(scale, variant.config, seed=seed, data=data)
            result = read(run.fingerprint, runs_root)
            fusion = run.model.fusion
            for feature in (feature for feature in shown if feature in features_of(variant.config)):
                accuracy = result["features"].get(feature, {}) if result else {}
                found.append(
                    {
                        "variant": variant.name,
                        "feature": feature,
                        "seed": seed,
                        "fingerprint": run.fingerprint,
                        "depth": fusion.depth if fusion else math.nan,
                        "dim": fusion.dim if fusion else math.nan,
                        **{metric: 100 * accuracy.get(metric, math.nan) for metric in METRICS},
                        "commit": result.get("commit") if result else None,
                        "device": result.get("device") if result else None,
                        "version": result["data"].get("version", "") if result else None,
                    }
                )
    frame = pd.DataFrame(found)
    versions = sorted(filter(None, set(frame["version"].dropna())))
    if len(versions) > 1:
        raise ValueError(
            f"{name}: runs of {data.name} {' and '.join(versions)}, whose numbers do not compare, in one table; keep "
            "those of each version in a folder of their own (--runs-root, FUSIONREID_RUNS)"
        )
    return frame


def collect(name: str, profile: str | Profile = "demo", **options) -> pd.DataFrame:
    """The mean and deviation over the seeds of what was measured for an experiment, a row per variant and feature.

    Args:
        name, profile, options: as those of `rows`.

    Returns:
        Columns `variant`, `feature`, `runs` (finished), `missing` (seeds that are not), and for each of METRICS its
        mean in percent over the finished runs (NaN: none) and, as `<metric>_std`, their standard deviation (NaN: fewer
        than two).
    """
    return summarise(rows(name, profile, **options))


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """`rows` to `collect`: the mean and deviation over the seeds."""
    collected = []
    for (variant, feature), group in frame.groupby(["variant", "feature"], sort=False):
        done = group.dropna(subset=["mAP"])
        row = {"variant": variant, "feature": feature, "runs": len(done), "missing": len(group) - len(done)}
        for metric in METRICS:
            row |= {metric: done[metric].mean(), f"{metric}_std": done[metric].std(ddof=1)}
        collected.append(row)
    return pd.DataFrame(collected)
