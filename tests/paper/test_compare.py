"""The paper's numbers and ours in one frame: tidy, with gaps where runs are missing, and costs of every row."""

from __future__ import annotations

import pytest

from fusionreid.config import PROFILES
from fusionreid.data.synthetic import RENDERER
from fusionreid.models.fusionreid import build_model
from fusionreid.paper import compare, recorded
from fusionreid.paper.experiments import DIMENSIONS, EXPERIMENTS, variants


def test_a_row_for_each_variant_feature_metric_and_seed(setting, finish):
    finish("table6", [50.0, None, 60.0])
    found = compare.frame("table6", setting(seeds=(0, 1)))
    assert len(found) == (6 + 9 * 3) * 2 * 2
    key = ["experiment", "variant", "feature", "metric", "seed"]
    assert not found.duplicated(key).any() and not found["paper"].isna().any()
    assert (found["missing"] == found["ours"].isna()).all()
    done = found[~found["missing"]]
    assert done["variant"].tolist() == ["ResNet50"] * 2 + ["ResNet152"] * 2 and set(
        done["seed"]
    ) == {0}
    assert done["ours"].tolist() == pytest.approx([50, 50, 60, 60])
    assert done["paper"].tolist() == [54.3, 78.1, 61.0, 82.7]
    assert set(done["commit"]) == {"0123abc"} and set(done["version"]) == {f"smoke-0, v{RENDERER}"}


def test_an_empty_folder_is_all_gaps(setting):
    found = compare.frame(EXPERIMENTS, setting())
    assert found["missing"].all() and found["ours"].isna().all() and not found["paper"].isna().any()
    assert set(found["experiment"]) == set(EXPERIMENTS)


@pytest.mark.parametrize("dataset, first", [("synthetic", 69.0), ("msmt17", 69.0), ("dukemtmc", 69.0),
                                            ("market1501", 91.5)])  # fmt: skip
def test_the_papers_data_set_is_the_same_or_msmt17(setting, dataset, first):
    found = compare.frame("figure5", setting(dataset), ("all",))
    assert found["paper"].iloc[0] == first
    expected = {"market1501": 91.7, "dukemtmc": 83.5}.get(dataset, 69.5)
    assert compare.frame("table1", setting(dataset))["paper"].iloc[0] == expected


def test_another_data_set_and_seed_have_runs_of_their_own(setting, finish):
    finish("table5", [50.0, 40.0])
    assert not compare.frame("table5", setting())["missing"].any()
    assert compare.frame("table5", setting("market1501"))["missing"].all()
    assert compare.frame("table5", setting(seeds=(1,)))["missing"].all()


def test_the_frame_carries_what_the_curves_draw(setting):
    depths = compare.frame("figure5", setting())
    assert sorted(depths["depth"].unique()) == [1, 2, 3, 4, 5, 6]
    assert depths.groupby("depth")["feature"].nunique().eq(7).all()
    dims = compare.frame("figure6", setting())
    assert list(dims["dim"].unique()) == [
        variant.config.fusion.dim // 16 for variant in variants("figure6")
    ]


def test_a_damaged_result_is_an_error_that_names_the_file(setting, finish, tmp_path):
    finish("table5", [50.0])
    (path,) = tmp_path.glob("*/result.json")
    whole = path.read_text()
    for damaged in (
        whole[: len(whole) // 2],
        "[]",
        whole.replace("0.5", "50.0", 1),
        whole.replace('"all"', '"every"'),
    ):
        path.write_text(damaged)
        with pytest.raises(ValueError, match="expected .*; delete ") as error:
            compare.frame("table5", setting())
        assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["table2", "table6"])
def test_features_of_a_configuration_are_the_models(name):
    for variant in variants(name)[:7]:
        config = PROFILES["smoke"].scale(variant.config)
        widths = build_model(config, num_classes=2, num_cameras=1).widths
        assert compare.features_of(config) == [*widths, "all"]


def test_differences_hold_the_recorded_runs_and_the_own_one(setting, finish, record):
    assert record("table5", {"GeM": 10, "GAP": 4}) == 16
    finish("table5", [50.0, 40.0])  # the own run of data seed 0, seed 0, after it was recorded
    found = compare.differences("table5", setting()).set_index(["variant", "metric"])
    row = found.loc["GAP", "mAP"]
    assert row["paper_less"] == pytest.approx(68.6 - 69.5) and row["ours_less"] == pytest.approx(
        -10
    )
    assert (
        row["low"] < -6 < row["high"]
        and row["recorded_less"] == pytest.approx(-6, abs=2)
        and row["runs"] == 8
    )
    gem = found.loc["GeM", "mAP"]
    assert gem["recorded"] - row["recorded"] == pytest.approx(-row["recorded_less"], abs=0.05)
    assert (
        found.loc["GeM", ["paper_less", "recorded_less", "low", "ours_less"]].isna().all(axis=None)
    )
    dots = compare.dots("table5", setting())
    assert (
        dots["case"].tolist() == ["GAP", "GAP"] and dots["recorded"].iloc[0] == row["recorded_less"]
    )
    decided = compare.decides(["table5"], setting()).loc["table5", "mAP"]
    assert decided["half width"] == pytest.approx((row["high"] - row["low"]) / 2)
    assert decided["rows"] == decided["decided"] == 1 and decided["paper"] == pytest.approx(0.9)


def test_recorded_means_are_of_the_runs_that_all_rows_have(setting, record):
    record("table5", {"GeM": 10})
    record("table5", {"GAP": 4}, seeds=(1, 2), data_seeds=(1,))
    found = compare.differences("table5", setting()).set_index(["metric", "variant"]).loc["mAP"]
    keys = found["configuration"]
    gem = recorded.of(keys["GeM"], "all")["mAP"]
    assert len(gem) == 8 and found["recorded"]["GeM"] == pytest.approx(
        gem.loc[[(1, 1), (1, 2)]].mean()
    )
    assert found["recorded"]["GeM"] != pytest.approx(gem.mean(), abs=0.1)
    assert found["recorded"].diff()["GAP"] == pytest.approx(found["recorded_less"]["GAP"], abs=0.05)
    assert recorded.about([*keys]).startswith(
        "2 to 8 runs a row, means of the 2 that all have, training seeds 0, 1,"
    )
    record("table5", {"GAP": 4}, seeds=(0,), data_seeds=(0,))
    assert len(recorded.shared_runs(keys)) == 3


def test_own_differences_are_paired_by_seed(setting, finish):
    finish("table5", (40, 30), seed=0)
    finish("table5", (50, 48), seed=1)
    finish("table5", (60, None), seed=2)
    found = compare.differences("table5", setting(seeds=(0, 1, 2))).set_index(["variant", "metric"])
    # -10 and -2; the seed that only one of them has says nothing of their difference.
    assert found.loc["GAP", "mAP"]["ours_less"] == pytest.approx(-6)
    assert found.loc["GAP", "mAP"]["missing"] == 1 and found["recorded"].isna().all()


def test_the_curves_have_the_papers_scale_and_a_row_for_each_run(setting, finish, record):
    assert compare.curves("figure6", setting())["recorded"].empty
    record("figure6", {"D = 768": 10})
    finish("figure6", [50.0] * 3)
    sides = compare.curves("figure6", setting())
    assert sides["paper"]["dim"].tolist() == list(DIMENSIONS) and set(sides["recorded"]["dim"]) == {
        768
    }
    assert sides["ours"]["dim"].tolist() == list(DIMENSIONS[:3]) and sides["ours"][
        "here"
    ].tolist() == [24, 36, 48]
    assert len(sides["recorded"]) == 8
    assert set(compare.curves("figure5", setting())["recorded"]["depth"]) == {2}, "the same runs"


def test_every_row_costs_what_the_paper_says():
    rows = compare.costs()
    assert len(rows) == sum(len(variants(name)) for name in compare.COSTED) == 32
    right = rows[~rows["misprint"]]
    for cost in ("parameters", "macs"):
        assert (right[cost] - right[f"paper_{cost}"]).abs().max() <= 0.15
    (wrong,) = rows[rows["misprint"]].itertuples()
    assert wrong.name == "ResNet101 + T2T-ViT-14" and wrong.parameters == pytest.approx(
        108.0, abs=0.15
    )


def test_costs_of_one_htm_are_half_of_what_two_add():
    rows = compare.costs(("table2", "table3"), PROFILES["smoke"])
    full, base, one = (
        rows[rows["name"] == name].iloc[0] for name in ("FusionReID*", "DFE + LRU", "SEU, MFU")
    )
    for column in ("parameters", "macs", "all_parameters", "attention_macs"):
        assert one[column] == pytest.approx((full[column] - base[column]) / 2)
    assert one["counts"] == "one HTM" and full["counts"] == "model" and full["parameters"] < 2
