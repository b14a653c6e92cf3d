"""The paper's numbers and ours meet: tidy, with gaps where runs are missing; and the costs."""

from __future__ import annotations

import pytest

from fusionreid.config import FEATURES, PROFILES
from fusionreid.data.synthetic import RENDERER
from fusionreid.models.fusionreid import build_model
from fusionreid.paper import compare, recorded
from fusionreid.paper.compare import costs, features_of, results
from fusionreid.paper.experiments import DIMENSIONS, EXPERIMENTS, variants


def test_a_row_for_each_variant_feature_metric_and_seed(setting, finish):
    finish("table6", [50.0, None, 60.0])
    runs = results("table6", setting(seeds=(0, 1))).runs
    assert len(runs) == (6 * 2 + 9 * 7) * 2 * 2
    assert not runs.duplicated(["experiment", "variant", "feature", "metric", "seed"]).any()
    assert (runs["missing"] == runs["ours"].isna()).all()
    done = runs[~runs["missing"] & (runs["feature"] == "all")]
    assert done["variant"].tolist() == ["ResNet50"] * 2 + ["ResNet152"] * 2
    assert set(done["seed"]) == {0}
    assert done["ours"].tolist() == pytest.approx([50, 50, 60, 60])
    assert done["paper"].tolist() == [54.3, 78.1, 61.0, 82.7]
    for result in done["result"]:
        assert result["commit"] == "0123abc"
        assert result["data"]["version"] == f"smoke-0, v{RENDERER}"


def test_an_empty_folder_is_all_gaps(setting):
    measured = results(EXPERIMENTS, setting())
    assert measured.runs["missing"].all() and measured.runs["ours"].isna().all()
    assert measured.rows["recorded"].isna().all() and not measured.rows["runs"].any()
    for name in EXPERIMENTS:
        shown = measured.shown(name)
        assert len(shown) and not shown["paper"].isna().any()


def test_an_experiment_shows_all_features_side_by_side_unless_others_are_asked_for(setting):
    measured = results(["table2", "figure5"], setting())
    assert set(measured.shown("table2")["feature"]) == {"all"}
    assert set(measured.shown("figure5")["feature"]) == {*FEATURES, "all"}
    assert set(measured.shown("table2", ["cnn", "all"])["feature"]) == {"cnn", "all"}
    assert set(measured.shown("table2")["experiment"]) == {"table2"}


@pytest.mark.parametrize(
    "dataset, depth_one, full",
    [
        ("synthetic", 69.0, 69.5),
        ("msmt17", 69.0, 69.5),
        ("dukemtmc", 69.0, 83.5),
        ("market1501", 91.5, 91.7),
    ],
)
def test_the_papers_data_set_is_the_same_or_msmt17(setting, dataset, depth_one, full):
    measured = results(["table1", "figure5"], setting(dataset))
    assert measured.shown("figure5", ["all"])["paper"].iloc[0] == depth_one
    assert measured.shown("table1")["paper"].iloc[0] == full


def test_another_data_set_and_seed_have_runs_of_their_own(setting, finish):
    finish("table5", [50.0, 40.0])
    assert not results("table5", setting()).runs["missing"].any()
    assert results("table5", setting("market1501")).runs["missing"].all()
    assert results("table5", setting(seeds=(1,))).runs["missing"].all()


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
            results("table5", setting())
        assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["table2", "table6"])
def test_features_of_a_configuration_are_the_models(name):
    for variant in variants(name)[:7]:
        config = PROFILES["smoke"].scale(variant.config)
        widths = build_model(config, num_classes=2, num_cameras=1).widths
        assert features_of(config) == [*widths, "all"]


def test_rows_hold_the_recorded_runs_and_the_own_one(setting, finish, record):
    assert record("table5", {"GeM": 10, "GAP": 4}) == 16
    finish("table5", [50.0, 40.0])  # the own run of data seed 0, seed 0, after it was recorded
    measured = results("table5", setting())
    rows = measured.shown("table5").set_index(["variant", "metric"])
    gap = rows.loc["GAP", "mAP"]
    assert gap["paper_less"] == pytest.approx(68.6 - 69.5)
    assert gap["ours_less"] == pytest.approx(-10)
    assert gap["low"] < -6 < gap["high"] and gap["runs"] == 8
    assert gap["recorded_less"] == pytest.approx(-6, abs=2)
    gem = rows.loc["GeM", "mAP"]
    assert gem["recorded"] - gap["recorded"] == pytest.approx(-gap["recorded_less"], abs=0.05)
    assert gem[["paper_less", "recorded_less", "low", "ours_less"]].isna().all()
    dots = measured.dots("table5")
    assert dots["case"].tolist() == ["GAP", "GAP"]
    assert dots["recorded"].iloc[0] == gap["recorded_less"]


def test_dots_name_the_feature_where_there_are_several(setting):
    dots = results("table5", setting()).dots("table5", ["cnn_fused", "all"])
    assert dots["case"].unique().tolist() == ["GAP, CNN fused", "GAP, all six"]


def test_recorded_means_are_of_the_runs_that_all_rows_have(setting, record):
    record("table5", {"GeM": 10})
    record("table5", {"GAP": 4}, seeds=(1, 2), data_seeds=(1,))
    rows = results("table5", setting()).shown("table5")
    rows = rows.set_index(["metric", "variant"]).loc["mAP"]
    keys = rows["configuration"]
    gem = recorded.archive().rows.query("configuration == @keys['GeM'] and feature == 'all'")
    gem = gem.set_index(["data_seed", "seed"])["mAP"]
    assert len(gem) == 8
    assert rows["recorded"]["GeM"] == pytest.approx(gem.loc[[(1, 1), (1, 2)]].mean())
    assert rows["recorded"]["GeM"] != pytest.approx(gem.mean(), abs=0.1)
    assert rows["recorded"].diff()["GAP"] == pytest.approx(rows["recorded_less"]["GAP"], abs=0.05)
    assert recorded.about([*keys]).startswith(
        "2 to 8 runs a row, means of the 2 that all have, training seeds 0, 1,"
    )
    record("table5", {"GAP": 4}, seeds=(0,), data_seeds=(0,))
    shared = recorded.shared_rows(keys).query("feature == 'all'")
    assert set(zip(shared["data_seed"], shared["seed"], strict=True)) == {(1, 1), (1, 2), (0, 0)}
    assert len(shared) == 2 * 3


def test_own_differences_are_paired_by_seed(setting, finish):
    finish("table5", (40, 30), seed=0)
    finish("table5", (50, 48), seed=1)
    finish("table5", (60, None), seed=2)
    rows = results("table5", setting(seeds=(0, 1, 2))).rows
    gap = rows.set_index(["variant", "feature", "metric"]).loc["GAP", "all", "mAP"]
    # -10 and -2; the seed that only one of them has says nothing of their difference.
    assert gap["ours_less"] == pytest.approx(-6)
    assert gap["missing"] == 1 and rows["recorded"].isna().all()


def test_the_curves_have_the_papers_scale_and_a_row_for_each_run(setting, finish, record):
    assert results("figure6", setting()).curves("figure6")["recorded"].empty
    record("figure6", {"D = 768": 10})
    finish("figure6", [50.0] * 3)
    measured = results(["figure5", "figure6"], setting())
    paper, theirs, ours = (
        measured.curves("figure6")[side].query("feature == 'all'")
        for side in ("paper", "recorded", "ours")
    )
    assert paper["dim"].tolist() == list(DIMENSIONS)
    assert theirs["dim"].tolist() == [768] * 8
    assert ours["dim"].tolist() == list(DIMENSIONS[:3]) and ours["here"].tolist() == [24, 36, 48]
    depths = measured.curves("figure5")
    assert set(depths["recorded"]["depth"]) == {2}, "the same runs"
    assert sorted(depths["paper"]["depth"].unique()) == [1, 2, 3, 4, 5, 6]
    assert depths["paper"].groupby("depth")["feature"].nunique().eq(7).all()


@pytest.mark.slow
def test_every_row_costs_what_the_paper_says():
    rows = costs()
    assert len(rows) == sum(len(variants(name)) for name in compare.COSTED) == 32
    right = rows[~rows["misprint"]]
    for cost in ("parameters", "macs"):
        assert (right[cost] - right[f"paper_{cost}"]).abs().max() <= 0.15
    (wrong,) = rows[rows["misprint"]].itertuples()
    assert wrong.name == "ResNet101 + T2T-ViT-14"
    assert wrong.parameters == pytest.approx(108.0, abs=0.15)


def test_costs_of_one_htm_are_half_of_what_two_add():
    rows = costs(("table2", "table3"), PROFILES["smoke"]).set_index("name")
    full, base, one = (rows.loc[name] for name in ("FusionReID*", "DFE + LRU", "SEU, MFU"))
    for column in ("parameters", "macs", "all_parameters", "attention_macs"):
        assert one[column] == pytest.approx((full[column] - base[column]) / 2)
    assert one["counts"] == "one HTM" and full["counts"] == "model" and full["parameters"] < 2
