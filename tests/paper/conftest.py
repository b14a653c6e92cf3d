"""Finished runs as `train` leaves them, in a folder of their own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from fusionreid import paths
from fusionreid.config import PROFILES
from fusionreid.data.layouts import MARKET_FOLDERS
from fusionreid.data.synthetic import RENDERER
from fusionreid.files import write_json
from fusionreid.paper import compare, experiments, recorded


@pytest.fixture(autouse=True)
def nothing_recorded(tmp_path, monkeypatch):
    """The committed rows stay out of the tests; what a test records goes to a folder of its own."""
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")


@pytest.fixture
def setting(tmp_path):
    """`experiments.setting` of the smoke profile, its runs in a new folder."""
    return partial(experiments.setting, "smoke", runs_root=tmp_path)


@pytest.fixture
def finish(tmp_path):
    """Writes results of an experiment's variants, given in their order.

    Of each variant it takes a percentage, or {(feature, metric): percentage}; None is not run.
    """

    def write(name, values, seed=0):
        for variant, value in zip(experiments.variants(name), values, strict=False):
            if value is None:
                continue
            run = experiments.setting("smoke").run(variant.config, seed)
            features = {}
            for feature in compare.features_of(variant.config):
                features[feature] = {}
                for metric in compare.ACCURACY:
                    percentage = value
                    if isinstance(value, dict):
                        percentage = value.get((feature, metric), 50.0)
                    features[feature][metric] = percentage / 100
            write_result(tmp_path, run, features)

    return write


def write_result(runs_root, run, features):
    """Writes the result of a run; `features` are {feature: {metric: fraction of 1}}."""
    result = {
        "fingerprint": run.fingerprint,
        "data": {"name": "synthetic", "version": f"smoke-{run.data.seed}, v{RENDERER}"},
        "seed": run.seed,
        "epochs": 2,
        "commit": "0123abc",
        "device": "cpu, 1 threads",
        "processes": 1,
        "seconds": 1.0,
        "features": features,
    }
    write_json(runs_root / run.fingerprint / "result.json", result)


PEOPLE = 40


@pytest.fixture
def people(tmp_path):
    """The folders smoke-0 and smoke-1, of 40 people each; person n has 1 + n % 3 queries.

    The files are empty, as no image is opened.
    """
    for seed in (0, 1):
        folder = tmp_path / "data" / f"smoke-{seed}"
        for split in MARKET_FOLDERS.values():
            (folder / split).mkdir(parents=True)
            for person in range(1, PEOPLE + 1):
                for image in range(1 + person % 3):
                    (
                        folder / split / f"{person + 100 * seed:04d}_c{1 + image}s1_000001_00.jpg"
                    ).touch()
        write_json(folder / "manifest.json", {"size": "smoke", "seed": seed, "version": RENDERER})
    return tmp_path / "data"


@pytest.fixture
def record(people, tmp_path):
    """Finishes and records runs of an experiment, by default of 2 data seeds and 4 training seeds.

    Takes {variant: points more than 50 % AP}. A query's AP is what its person, the seed and chance
    give it, and every feature has the same. Returns the number of runs that were recorded.
    """

    def write(name, points, seeds=(0, 1, 2, 3), data_seeds=(0, 1), spread=1.0):
        configs = {variant.name: variant.config for variant in experiments.variants(name)}
        recorded_runs = 0
        for data_seed in data_seeds:
            data = replace(PROFILES["smoke"].data, seed=data_seed)
            setting = experiments.setting(
                "smoke", data, seeds, tmp_path, people / f"smoke-{data_seed}"
            )
            owners = np.repeat(
                np.arange(PEOPLE), [1 + (person + 1) % 3 for person in range(PEOPLE)]
            )
            easy = 10 * np.random.default_rng(data_seed).normal(
                size=PEOPLE
            )  # the same in every run
            for row, more in points.items():
                for seed in seeds:
                    run = setting.run(configs[row], seed)
                    random = np.random.default_rng([data_seed, seed, list(configs).index(row)])
                    noise = spread * (random.normal() + 3 * random.normal(size=PEOPLE))
                    precision = np.clip(50 + more + easy + noise, 0, 100)[owners] / 100
                    precision[0] = np.nan  # a query without a match
                    first = np.where(np.isnan(precision), np.nan, np.where(precision > 0.5, 1, 3))
                    scored = np.isfinite(precision)
                    accuracy = {
                        "mAP": precision[scored].mean(),
                        "rank-1": (first[scored] == 1).mean(),
                    }
                    features = compare.features_of(configs[row])
                    folder = tmp_path / run.fingerprint
                    write_result(tmp_path, run, dict.fromkeys(features, accuracy))
                    np.savez(folder / "average_precision.npz", **dict.fromkeys(features, precision))
                    np.savez(folder / "first_match.npz", **dict.fromkeys(features, first))
            recorded_runs += recorded.record(setting)
        return recorded_runs

    return write
