"""Runs read back: tidy, with gaps where runs are missing, and errors that name damaged files."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fusionreid.config import PAPER, PROFILES
from fusionreid.files import write_json
from fusionreid.paper import results
from fusionreid.paper.experiments import variants
from fusionreid.training.runs import describe

SMOKE = PROFILES["smoke"]


def finish(root, run, mAP=0.5, **changes):
    """A finished run as `train` leaves it, every feature with the same accuracy."""
    accuracy = {"mAP": mAP, "rank-1": 0.75, "rank-5": 0.8, "rank-10": 0.9, "mINP": 0.2, "mAP_trapezoid": 0.49}
    result = {
        "fingerprint": run.fingerprint,
        "data": {"name": run.data.name, "version": "smoke-0"},
        "seed": run.seed,
        "commit": "0123abc",
        "device": "cpu",
        "seconds": 1.5,
        "features": {feature: accuracy for feature in results.features_of(run.model)},
    }
    write_json(root / run.fingerprint / "config.json", describe(run))
    write_json(root / run.fingerprint / "result.json", {**result, **changes})
    return root / run.fingerprint / "result.json"


def test_load_is_tidy(tmp_path):
    assert list(results.load(tmp_path)) == list(results.load(tmp_path / "nothing"))
    assert results.load(tmp_path).empty
    run = SMOKE.run(seed=3)
    finish(tmp_path, run)
    write_json(tmp_path / "0123456789ab" / "config.json", {})  # a run in progress
    (tmp_path / "notebooks").mkdir()  # not a run
    table = results.load(tmp_path)
    assert len(table) == 7 * 6  # six features and all of them, six metrics
    assert set(table["fingerprint"]) == {run.fingerprint}
    assert set(table["profile"]) == {"smoke"} and set(table["seed"]) == {3}
    assert set(table["dataset"]) == {"synthetic"} and set(table["version"]) == {"smoke-0"}
    one = table[(table["feature"] == "cnn_fused") & (table["metric"] == "rank-1")]
    assert list(one["value"]) == [0.75]


def test_training_of_no_profile_has_no_profile(tmp_path):
    run = replace(SMOKE.run(), train=replace(SMOKE.train, epochs=3))
    finish(tmp_path, run)
    assert set(results.load(tmp_path)["profile"]) == {""}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "expected JSON"),
        (lambda text: "", "expected JSON"),
        (lambda text: "[]", "found 'list'"),
        (lambda text: text.replace("0.75", "75.0", 1), "rank-1 as a fraction of 1, found 75.0"),
        (lambda text: text.replace("0.5,", "NaN,", 1), "mAP as a fraction of 1, found nan"),
        (lambda text: text.replace('"seed"', '"sead"'), r"missing \['seed'\]"),
        (lambda text: text.replace('"all"', '"everything"'), "the feature 'all'"),
        (lambda text: text.replace('"fingerprint": "', '"fingerprint": "0'), "expected the result of run"),
    ],
)
def test_a_damaged_result_is_an_error_that_names_the_file(tmp_path, damage, message):
    path = finish(tmp_path, SMOKE.run())
    path.write_text(damage(path.read_text()))
    for read in (lambda: results.load(tmp_path), lambda: results.collect("table2", "smoke", runs_root=tmp_path)):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert str(path) in str(error.value)
        assert "delete" in str(error.value)


def test_collect_shows_missing_runs_as_gaps(tmp_path):
    table = results.collect("table2", "smoke", runs_root=tmp_path)
    assert list(table["variant"]) == [variant.name for variant in variants("table2")]
    assert table["mAP"].isna().all() and (table["runs"] == 0).all() and (table["missing"] == 1).all()

    finish(tmp_path, SMOKE.run(PAPER))
    table = results.collect("table2", "smoke", runs_root=tmp_path).set_index("variant")
    assert table.loc["FusionReID*", "mAP"] == 50 and table.loc["FusionReID*", "rank-1"] == 75
    assert table["mAP"].notna().sum() == 1


def test_versions_of_a_data_set_are_not_mixed(tmp_path):
    for seed, version in enumerate(("V1", "V2")):
        finish(tmp_path, SMOKE.run(PAPER, seed=seed), data={"name": "synthetic", "version": version})
    assert results.rows("table5", "smoke", runs_root=tmp_path)["version"].iloc[0] == "V1"
    with pytest.raises(ValueError, match="table5: runs of synthetic V1 and V2, .*--runs-root"):
        results.rows("table5", "smoke", seeds=(0, 1), runs_root=tmp_path)


def test_collect_is_the_mean_and_deviation_over_the_seeds(tmp_path):
    for seed, value in enumerate((0.4, 0.5, 0.9)):
        finish(tmp_path, SMOKE.run(PAPER, seed=seed), value)
    row = results.collect("table5", "smoke", seeds=(0, 1, 2, 3), runs_root=tmp_path).iloc[0]
    assert (row["runs"], row["missing"]) == (3, 1)
    assert row["mAP"] == pytest.approx(60)
    assert row["mAP_std"] == pytest.approx(math.sqrt((20**2 + 10**2 + 30**2) / 2))


def test_rows_carry_what_the_figures_draw(tmp_path):
    finish(tmp_path, SMOKE.run(PAPER))
    depths = results.rows("figure5", "smoke", runs_root=tmp_path)
    assert sorted(depths["depth"].unique()) == [1, 2, 3, 4, 5, 6]
    assert depths.groupby("depth")["feature"].nunique().eq(7).all()
    assert depths["mAP"].notna().sum() == 7
    dims = results.rows("figure6", "smoke", seeds=(0, 1), runs_root=tmp_path)
    assert list(dims["dim"].unique()) == [variant.config.fusion.dim // 16 for variant in variants("figure6")]
    assert len(dims) == 2 * len(variants("figure6"))


def test_single_branches_show_one_feature(tmp_path):
    table = results.rows("table6", "smoke", runs_root=tmp_path)
    counts = table.groupby("variant", sort=False)["feature"].nunique()
    assert list(counts) == [1] * 6 + [3] * 9


@pytest.mark.parametrize("name", ["table2", "table6"])
def test_features_of_a_configuration_are_the_models(name):
    from fusionreid.models.fusionreid import build_model

    for variant in variants(name)[:7]:
        config = SMOKE.scale(variant.config)
        widths = build_model(config, num_classes=2, num_cameras=1).widths
        assert results.features_of(config) == [*widths, "all"]


def test_another_data_set_has_results_of_its_own(tmp_path):
    finish(tmp_path, SMOKE.run(PAPER))
    assert results.collect("table5", "smoke", runs_root=tmp_path)["runs"].sum() == 1
    assert results.collect("table5", "smoke", dataset="market1501", runs_root=tmp_path)["runs"].sum() == 0
    with pytest.raises(ValueError, match="cuhk03.*market1501"):
        results.collect("table5", "smoke", dataset="cuhk03", runs_root=tmp_path)
