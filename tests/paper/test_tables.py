"""Tables: the paper's columns and ours apart, the best two marked, captions."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionreid.paper import experiments
from fusionreid.paper import numbers as paper
from fusionreid.paper.compare import results
from fusionreid.paper.experiments import EXPERIMENTS, variants
from fusionreid.paper.tables import comparison, save, switched

OURS = "Own run, synthetic, smoke"
RECORDED = "Recorded, synthetic people, smoke"
PAPER = "Paper, MSMT17"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_table_has_all_its_rows_before_anything_has_run(setting, name):
    table = comparison(results(name, setting()), name)
    labels = [label[0] if isinstance(label, tuple) else label for label in table.numbers.index]
    for variant in variants(name):
        assert experiments.label(variant.name, setting().profile) in labels
    ours = {experiments.label(variant.name, setting().profile) for variant in variants(name)}
    cells = table.cells().loc[[label in ours for label in labels], (OURS, "mAP")]
    assert (cells == "not run").all()
    assert "are missing" in table.caption and paper.TITLES[name] in table.caption
    assert "Recorded, real people: no runs." in table.caption


def test_the_papers_numbers_and_ours_never_share_a_column(setting, finish):
    finish("table4", (11.1, 22.2, 33.3, 44.4))
    table = comparison(results("table4", setting()), "table4")
    assert list(table.numbers[(PAPER, "mAP")]) == [69.1, 69.5, 68.7, 69.2]
    assert list(table.numbers[(OURS, "mAP")]) == pytest.approx([11.1, 22.2, 33.3, 44.4])
    for group, measure in table.numbers.columns:
        if measure in ("mAP", "rank-1"):
            values = table.numbers[(group, measure)]
            assert values.gt(60).all() if group.startswith("Paper") else values.lt(60).all()


def test_best_and_second_best(setting, finish):
    finish("table4", (11.1, 44.4, 33.3, 44.41))
    cells = comparison(results("table4", setting()), "table4").cells()
    assert list(cells[(PAPER, "mAP")]) == ["69.1", "<b>69.5</b>", "68.7", "<u>69.2</u>"]
    assert list(cells[(OURS, "mAP")]) == ["11.1", "44.4", "33.3", "44.4"], "ours are not marked"


def test_a_single_number_is_not_the_best_of_anything(setting, finish):
    finish("table5", (50, None))
    cells = comparison(results("table5", setting()), "table5").cells()
    assert list(cells[(OURS, "mAP")]) == ["50.0", "not run"]


def test_differences_are_from_the_base_row(setting, finish):
    finish("table2", (20, 30, 40, 39, 45, 50, 60))
    table = comparison(results("table2", setting()), "table2")
    assert list(table.cells()[(OURS, "Δ mAP")]) == [
        "-20.0",
        "-10.0",
        "",
        "-1.0",
        "+5.0",
        "+10.0",
        "+20.0",
    ]
    assert list(table.cells()[(PAPER, "Δ mAP")]) == [
        "-13.2",
        "-2.9",
        "",
        "+0.2",
        "+1.2",
        "+1.4",
        "+2.0",
    ]
    assert "from the row DFE" in table.caption


def test_several_seeds_are_a_mean_and_a_deviation(setting, finish):
    finish("table5", (40, 30), seed=0)
    finish("table5", (50, 48), seed=1)
    finish("table5", (60, None), seed=2)
    table = comparison(results("table5", setting(seeds=(0, 1, 2))), "table5")
    assert list(table.cells()[(OURS, "mAP")]) == ["50.0 ± 10.0", "39.0 ± 12.7 (1 not run)"]
    assert list(table.cells()[(OURS, "Δ mAP")]) == ["", "-6.0"]
    assert "seeds 0, 1, 2 (mean ± standard deviation)" in table.caption
    assert "1 of 6 own runs are missing" in table.caption


def test_recorded_runs_stand_between_the_papers_and_the_own_one(setting, finish, record):
    record("table5", {"GeM": 10, "GAP": 4})
    finish("table5", (40, 30))
    table = comparison(results("table5", setting()), "table5")
    measures = ["mAP", "Δ mAP", "rank-1"]
    columns = [(group, measure) for group in (PAPER, RECORDED, OURS) for measure in measures]
    columns.insert(6, (RECORDED, "runs"))
    assert list(table.numbers) == columns
    cells = table.cells()
    assert list(cells[(RECORDED, "runs")]) == ["8", "8"]
    assert list(cells[(OURS, "mAP")]) == ["40.0", "30.0"]
    first, second = cells[(RECORDED, "Δ mAP")]
    less, half = map(float, second.split(" ± "))
    assert first == "" and -9 < less < -3 and 0 < half < 4
    assert (
        "8 runs a row, training seeds 0, 1, 2, 3, data seeds 0, 1, 80 different test people"
        in table.caption
    )
    assert "± is half the width of its 95 % interval over seeds" in table.caption


def test_a_row_that_is_not_recorded_is_a_gap(setting, record):
    record("table5", {"GeM": 10})
    cells = comparison(results("table5", setting()), "table5").cells()
    assert cells.loc["GAP", (RECORDED, "runs")] == ""
    assert cells.loc["GAP", (RECORDED, "mAP")] == "not recorded"
    assert cells.loc["GeM", (RECORDED, "mAP")] != ""


@pytest.mark.slow
def test_what_is_switched_is_said_with_its_costs():
    table = switched("table4")
    changes, parameters, macs = table.loc["SEU unshared, MFU shared"]
    assert changes == "share_seu=False, share_mfu=True"
    for text, printed in ((parameters, "21.3"), (macs, "2.9")):
        ours, theirs = text.split()
        assert theirs == f"({printed})" and float(ours) == pytest.approx(float(printed), abs=0.15)
    assert table.loc["SEU shared, MFU unshared", "differs from PAPER in"] == "nothing"
    assert list(table)[1:] == ["one HTM: parameters (M)", "one HTM: multiply-adds (G)"]
    assert switched("differences").iloc[1].tolist()[0] == "mfu_residual=attention"
    assert switched("table2").loc["ResNet50", "differs from PAPER in"] == "transformer=None"
    assert switched("table2").loc["DFE", "differs from PAPER in"] == "fusion=None"


def test_the_caption_says_where_the_numbers_are_from(setting, finish):
    finish("table5", (40, 30))
    text = comparison(results("table5", setting()), "table5").caption
    for part in (
        "profile smoke",
        "data synthetic smoke-0",
        "seed 0",
        "commit 0123abc",
        "device cpu, 1 threads",
    ):
        assert part in text
    assert "compare the signs of differences, not values" in text
    paper_scale = experiments.setting("paper", "msmt17", runs_root=setting().runs_root)
    assert "compare orders" not in comparison(results("table5", paper_scale), "table5").caption


def test_the_state_of_the_art_holds_the_published_methods(setting, finish):
    table = comparison(results("table1", setting()), "table1")
    assert len(table.numbers) == 20
    cells = table.cells()
    assert cells.loc["NFormer [15]", ("Paper, DukeMTMC", "mAP")] == "<u>83.5</u>"
    assert cells.loc["FusionReID* ↑", ("Paper, Market1501", "mAP")] == "<u>91.6</u>"
    assert cells.loc["FusionReID*", ("Paper, Market1501", "mAP")] == "<b>91.7</b>"
    assert cells.loc["AAformer [17]", ("Paper, Market1501", "mAP")] == "–"  # lost
    assert cells.loc["MGN [30] ↑", (OURS, "mAP")] == ""
    assert cells.loc["TransReID [16]", ("", "backbone")] == "ViT-B/16*"
    assert any(note.startswith("FusionReID*, Market1501: lost") for note in table.notes)


def test_backbones_show_three_features_a_pair(setting, finish):
    table = comparison(results("table6", setting()), "table6")
    assert len(table.numbers) == 6 + 9 * 3
    row = table.numbers.loc[
        ("ResNet50 + ViT-B/16* (ours: small CNN + small Transformer)", "Transformer fused")
    ]
    assert row[(PAPER, "mAP")] == 67.8
    assert [label[1] for label in table.numbers.index[:7]] == ["CNN"] * 3 + ["Transformer"] * 3 + [
        "CNN fused"
    ]
    assert any("107.0 stands for 108.0" in note for note in table.notes)


def test_the_figures_stand_beside_the_plotted_points(setting):
    table = comparison(results("figure5", setting()), "figure5", features=("all",))
    assert list(table.cells()[(PAPER, "Δ mAP")]) == ["-0.5", "", "-0.2", "-0.5", "+0.2", "0.0"]
    assert table.notes[0].startswith("L = 1, L = 3, L = 4, L = 5, L = 6: plotted, not printed")
    assert len(comparison(results("figure5", setting()), "figure5").numbers) == 6 * 7


def test_what_the_paper_has_no_table_of_has_columns_of_ours_only(setting, finish):
    finish("differences", [50, 40, 45])
    table = comparison(results("differences", setting()), "differences")
    assert {group for group, _ in table.numbers} == {OURS}
    assert list(table.cells()[(OURS, "Δ mAP")]) == ["", "-10.0", "-5.0", "", "", ""]


def test_it_survives_where_styles_are_stripped(setting, finish):
    finish("table2", (20, 30, 40, 39, 45, 50, 60))
    table = comparison(results("table2", setting()), "table2")
    html = table._repr_html_()
    assert "<b>69.5</b>" in html and "<u>68.9</u>" in html
    assert table.caption.split(".")[0] in html
    assert html == comparison(results("table2", setting()), "table2")._repr_html_()
    assert repr(table) == table.markdown()
    text = table.markdown()
    assert "<b>69.5</b>" in text and "<u>68.9</u>" in text
    assert r"ViT-B/16\*" in text and r"FusionReID\*" in text
    for part in (table.numbers, table.spread, table.missing):
        part.index = part.index.map("a|b {}".format)
    assert r"| a\|b ResNet50 (ours: small CNN) |" in table.markdown()
    widths = {
        line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("|")
    }
    assert len(widths) == 1


def test_save_writes_both_copies(setting, finish, tmp_path):
    finish("table5", (40, 30), seed=0)
    finish("table5", (50, 48), seed=1)
    table = comparison(results("table5", setting(seeds=(0, 1))), "table5")
    assert save(table, tmp_path / "figures" / "07_pooling") is table
    assert (tmp_path / "figures" / "07_pooling.md").read_text(encoding="utf-8") == table.markdown()
    read = pd.read_csv(tmp_path / "figures" / "07_pooling.csv")
    assert list(read["variant"]) == ["GeM", "GAP"]
    assert list(read[f"{PAPER}: mAP"]) == [69.5, 68.6] and list(read[f"{OURS}: mAP"]) == [45, 39]
    assert read[f"{OURS}: mAP ±"].iloc[0] == pytest.approx(7.0711)
    assert set(read["caption"]) == {table.caption}


def test_the_own_run_is_checked_against_the_recorded_ones(setting, finish, record):
    def notes(*arguments):
        return comparison(results("table5", setting(*arguments)), "table5").notes

    record("table5", {"GeM": 10, "GAP": 4})
    assert notes() == ["2 own runs have exactly the recorded numbers"], "they are the recorded ones"
    finish("table5", (None, 54.5))
    found = "of 1 own runs that differ from the recorded ones, {} lie where 95 % of new seeds"
    assert notes()[1] == f"{found} of all rows would".format(1)
    finish("table5", (None, 90.0))
    assert notes()[0].startswith("1 own runs have")
    assert notes()[1].startswith(found.format(0))
    assert "; outside: GAP 90.0 (4" in notes()[1] or "; outside: GAP 90.0 (5" in notes()[1]
    assert not notes("market1501")
