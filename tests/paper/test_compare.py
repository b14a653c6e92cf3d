"""The paper's numbers and ours meet: tidy, with gaps where runs are missing; and the costs."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest

from fusionreid import paths
from fusionreid.config import FEATURES, PROFILES
from fusionreid.data.synthetic import RENDERER
from fusionreid.models.cost import measure
from fusionreid.models.fusionreid import build_model
from fusionreid.paper import compare, recorded
from fusionreid.paper.compare import costs, features_of, results
from fusionreid.paper.experiments import DIMENSIONS, EXPERIMENTS, variants


def test_a_row_for_each_variant_feature_metric_and_seed(setting, finish):
    finish("table6", [50.0, None, 60.0])
    runs = results("table6", setting(seeds=(0, 1))).runs
    assert len(runs) == (6 * 2 + 9 * 7) * 2 * 2
    assert not runs.duplicated(["experiment", "variant", "feature", "metric", "seed"]).any()
    assert (runs["missing"] == runs["own"].isna()).all()
    done = runs[~runs["missing"] & (runs["feature"] == "all")]
    assert done["variant"].tolist() == ["ResNet50"] * 2 + ["ResNet152"] * 2
    assert set(done["seed"]) == {0}
    assert done["own"].tolist() == pytest.approx([50, 50, 60, 60])
    assert done["paper"].tolist() == [54.3, 78.1, 61.0, 82.7]
    for result in done["result"]:
        assert result["commit"] == "0123abc"
        assert result["data"]["version"] == f"smoke-0, v{RENDERER}"


def test_an_empty_folder_is_all_gaps(setting):
    measured = results(EXPERIMENTS, setting())
    assert measured.runs["missing"].all() and measured.runs["own"].isna().all()
    assert set(measured.rows["source"]) == set(compare.SOURCES)
    ours = measured.rows[measured.rows["source"] != "paper"]
    assert ours["value"].isna().all() and not ours["runs"].any()
    for name in EXPERIMENTS:
        shown = measured.shown(name).query("source == 'paper'")
        assert len(shown) and not shown["value"].isna().any()


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
        ("dukemtmc", 69.0, 69.5),  # Fig. 5 is not of it, so both are MSMT17's
        ("market1501", 91.5, 91.7),
    ],
)
def test_the_papers_data_set_is_the_same_or_msmt17(setting, dataset, depth_one, full):
    measured = results(["table1", "figure5"], setting(dataset))
    first = measured.rows.query("source == 'paper' and feature == 'all'")
    first = first.groupby("experiment")["value"].first()
    assert first["figure5"] == depth_one and first["table1"] == full


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
    rows = measured.shown("table5").set_index(["variant", "metric", "source"])
    gap = rows.loc["GAP", "mAP"]
    assert gap["difference"]["paper"] == pytest.approx(68.6 - 69.5)
    assert gap["difference"]["own"] == pytest.approx(-10)
    ours = gap.loc["synthetic"]
    assert ours["low"] < -6 < ours["high"] and ours["runs"] == 8
    assert ours["difference"] == pytest.approx(-6, abs=2)
    gem = rows.loc["GeM", "mAP"]
    assert gem["value"]["synthetic"] - ours["value"] == pytest.approx(-ours["difference"])
    assert gem[["difference", "low"]].isna().all(axis=None)
    assert gem["value"]["real"] != gem["value"]["real"], "nothing of real people is recorded"
    dots = measured.dots("table5")
    assert set(dots["case"]) == {"GAP"} and len(dots) == 2 * 4
    synthetic = dots.query("metric == 'mAP' and source == 'synthetic'")
    assert synthetic["difference"].item() == ours["difference"]


def test_real_people_stand_apart_from_synthetic_ones(setting, record, monkeypatch):
    record("table5", {"GeM": 10, "GAP": 4})
    key = partial(recorded.configuration_of, profile=setting().profile)
    keys = {
        key(variant.config, source="synthetic"): key(variant.config, source="real")
        for variant in variants("table5")
    }
    # The same rows as if they were of draws of Market-1501.
    path = paths.RECORDED / "recorded.csv"
    rows = pd.read_csv(path)
    rows.assign(configuration=rows["configuration"].map(keys)).to_csv(path, index=False)
    recorded._read.cache_clear()
    found = results("table5", setting()).shown("table5").groupby("source")["value"]
    assert found.count()["real"] == 4 and found.count()["synthetic"] == 0
    titles = results("table5", setting()).titles
    assert titles["real"] == "Recorded, real people (Market1501), smoke"
    assert titles["synthetic"] == "Recorded, synthetic people, smoke"


def test_dots_name_the_feature_where_there_are_several(setting):
    dots = results("table5", setting()).dots("table5", ["cnn_fused", "all"])
    assert dots["case"].unique().tolist() == ["GAP, CNN fused", "GAP, all six"]


def test_a_recorded_row_that_has_fewer_runs_is_compared_on_those(setting, record):
    """Its mean is the reference row's plus the paired difference."""
    record("table5", {"GeM": 10})
    record("table5", {"GAP": 4}, seeds=(1, 2), data_seeds=(1,))
    rows = results("table5", setting()).shown("table5")
    rows = rows.query("metric == 'mAP' and source == 'synthetic'").set_index("variant")
    archive = recorded.archive().rows.query("feature == 'all'")
    runs = archive.pivot(index=["data_seed", "seed"], columns="row", values="mAP")
    gem = runs["table1: FusionReID*"]
    paired = (runs["table5: GAP"] - gem).dropna()
    assert len(gem) == 8 and len(paired) == 2
    assert rows["value"]["GeM"] == pytest.approx(gem.mean(), abs=0.05)
    assert rows["difference"]["GAP"] == pytest.approx(paired.mean(), abs=0.05)
    assert rows["value"]["GAP"] == pytest.approx(gem.mean() + paired.mean(), abs=0.05)
    about = recorded.about(archive["configuration"])
    assert about.startswith("2 to 8 runs a row, training seeds 0, 1, 2, 3, data seeds 0, 1")


def test_a_feature_that_the_reference_row_lacks_has_its_own_mean(setting, record):
    record("table2", {"DFE": 0, "FusionReID*": 6}, spread=0.1)
    rows = results("table2", setting()).rows
    rows = rows.query("source == 'synthetic' and variant == 'FusionReID*' and metric == 'mAP'")
    fused = rows.set_index("feature").loc["cnn_fused"]
    assert fused["value"] == pytest.approx(56, abs=1.5) and pd.isna(fused["difference"])


def test_own_differences_are_paired_by_seed(setting, finish):
    finish("table5", (40, 30), seed=0)
    finish("table5", (50, 48), seed=1)
    finish("table5", (60, None), seed=2)
    rows = results("table5", setting(seeds=(0, 1, 2))).rows.query("source == 'own'")
    gap = rows.set_index(["variant", "feature", "metric"]).loc["GAP", "all", "mAP"]
    # -10 and -2; the seed that only one of them has says nothing of their difference.
    assert gap["difference"] == pytest.approx(-6)
    assert gap["missing"] == 1


def test_the_points_of_a_figure_have_their_place_at_the_papers_scale(setting, finish, record):
    record("figure6", {"D = 768": 10})
    finish("figure6", [50.0] * 3)
    measured = results(["figure5", "figure6"], setting())
    points = measured.points("figure6").query("metric == 'mAP' and value == value")
    by_source = points.groupby("source")["dim"].apply(list)
    assert by_source["paper"] == list(DIMENSIONS)
    assert by_source["synthetic"] == [768]
    assert by_source["own"] == list(DIMENSIONS[:3])
    assert points.query("source == 'own'")["here"].tolist() == [24, 36, 48]
    depths = measured.points("figure5")
    assert sorted(depths["depth"].unique()) == [1, 2, 3, 4, 5, 6]
    assert depths.groupby("depth")["feature"].nunique().eq(7).all()


def test_one_claim_never_mixes_two_data_sets_of_the_paper(setting):
    """The paper has Fig. 5 on Market-1501 too, and Tables II to VI on MSMT17 alone."""
    market = setting("market1501")
    alone = results("figure5", market)
    assert alone.papers == "market1501" and "Paper, Market1501" in alone.titles.values()
    both = results(["table2", "figure5"], market)
    assert both.papers == "msmt17" and "Paper, MSMT17" in both.titles.values()
    rows = both.runs.query("feature == 'all' and metric == 'mAP'").groupby("variant")["paper"]
    assert rows.first()[["FusionReID*", "L = 2"]].tolist() == [69.5, 69.5]
    assert results(["figure5", "differences"], market).papers == "market1501"


def test_what_moves_a_number(setting, record):
    record("table2", {"DFE": 0, "DFE + LRU": 4, "DFE + LRU + SEU": 3})
    spread = compare.spread(results("table2", setting()), "table2")
    values = spread.loc["synthetic", "mAP"]
    differences = spread.loc["synthetic", "difference"]
    assert 0.4 < values["seeds"] < 2, "half a point of the seed, and chance"
    assert values["people"] > 2 * differences["people"], "a difference leaves hard people out"
    assert spread.loc["real"].isna().all(axis=None)


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


def test_costs_of_one_htm_are_half_of_what_two_add(monkeypatch):
    monkeypatch.setattr(compare, "measure", lambda config: measure(PROFILES["smoke"].scale(config)))
    rows = costs(("table2", "table3")).set_index("name")
    full, base, one = (rows.loc[name] for name in ("FusionReID*", "DFE + LRU", "SEU, MFU"))
    for column in ("parameters", "macs", "all_parameters", "attention_macs"):
        assert one[column] == pytest.approx((full[column] - base[column]) / 2)
    assert one["counts"] == "one HTM" and full["counts"] == "model" and full["parameters"] < 2
