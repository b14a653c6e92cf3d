"""Finished runs as `train` leaves them, in a folder of their own."""

from __future__ import annotations

from functools import partial

import pytest

from fusionreid.files import write_json
from fusionreid.paper import compare, experiments


@pytest.fixture
def setting(tmp_path):
    """`experiments.setting` of the smoke profile, its runs in a new folder."""
    return partial(experiments.setting, "smoke", runs_root=tmp_path)


@pytest.fixture
def finish(tmp_path):
    """Writes results of an experiment's variants, in their order; of each a percentage or {(feature, metric): one}."""

    def write(name, values, seed=0):
        for variant, value in zip(experiments.variants(name), values, strict=False):
            if value is None:
                continue
            run = experiments.setting("smoke").run(variant.config, seed)
            features = {
                feature: {
                    metric: (value.get((feature, metric), 50.0) if isinstance(value, dict) else value) / 100
                    for metric in compare.ACCURACY
                }
                for feature in compare.features_of(variant.config)
            }
            result = {"fingerprint": run.fingerprint, "data": {"name": "synthetic", "version": "smoke-0, v3"}}
            result |= {"seed": seed, "epochs": 2, "commit": "0123abc", "device": "cpu, 1 threads", "processes": 1}
            write_json(tmp_path / run.fingerprint / "result.json", result | {"seconds": 1.0, "features": features})

    return write
