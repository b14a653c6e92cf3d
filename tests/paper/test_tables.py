"""Tables: the paper's columns and ours apart, the best two marked, captions that say what is shown."""

from __future__ import annotations

import pandas as pd
import pytest

from fusionreid.config import PROFILES
from fusionreid.files import write_json
from fusionreid.paper import numbers as paper
from fusionreid.paper import results, tables
from fusionreid.paper.experiments import EXPERIMENTS, variants

SMOKE = PROFILES["smoke"]
OURS, PAPER = "Ours, synthetic (smoke)", "Paper, MSMT17"


def finish(root, name, values, seed=0):
    """Finished runs of an experiment's variants, in their order; None is a missing one."""
    for variant, value in zip(variants(name), values, strict=True):
        run = SMOKE.run(variant.config, seed=seed)
        if value is not None:
            accuracy = {"mAP": value / 100, "rank-1": value / 100}
            write_json(root / run.fingerprint / "result.json", {
                "fingerprint": run.fingerprint, "data": {"name": "synthetic", "version": "smoke-0"}, "seed": seed,
                "commit": "0123abc", "device": "cpu, 1 threads",
                "features": {feature: accuracy for feature in results.features_of(run.model)},
            })  # fmt: skip


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_table_has_all_its_rows_before_anything_has_run(name, tmp_path):
    table = tables.comparison(name, "smoke", runs_root=tmp_path)
    labels = [label[0] if isinstance(label, tuple) else label for label in table.numbers.index]
    for variant in variants(name):
        assert variant.name in labels
    cells = table.cells()
    ours = cells.loc[[label in {variant.name for variant in variants(name)} for label in labels], (OURS, "mAP")]
    assert (ours == "not run").all()
    assert "are missing" in table.caption and paper.TITLES[name] in table.caption


def test_the_papers_numbers_and_ours_never_share_a_column(tmp_path):
    finish(tmp_path, "table4", (11.1, 22.2, 33.3, 44.4))
    table = tables.comparison("table4", "smoke", runs_root=tmp_path)
    assert list(table.numbers[(PAPER, "mAP")]) == [69.1, 69.5, 68.7, 69.2]
    assert list(table.numbers[(OURS, "mAP")]) == pytest.approx([11.1, 22.2, 33.3, 44.4])
    for group, measure in table.numbers.columns:
        if measure in ("mAP", "rank-1"):
            values = table.numbers[(group, measure)]
            assert values.gt(60).all() if group.startswith("Paper") else values.lt(60).all()


def test_best_and_second_best(tmp_path):
    finish(tmp_path, "table4", (11.1, 44.4, 33.3, 44.41))
    cells = tables.comparison("table4", "smoke", runs_root=tmp_path).cells()
    assert list(cells[(OURS, "mAP")]) == ["11.1", "<b>44.4</b>", "<u>33.3</u>", "<b>44.4</b>"]
    assert list(cells[(PAPER, "mAP")]) == ["69.1", "<b>69.5</b>", "68.7", "<u>69.2</u>"]
    assert list(cells[("Paper, one HTM", "parameters (M)")]) == ["14.2", "21.3", "21.3", "28.4"]


def test_a_single_number_is_not_the_best_of_anything(tmp_path):
    finish(tmp_path, "table5", (50, None))
    cells = tables.comparison("table5", "smoke", runs_root=tmp_path).cells()
    assert list(cells[(OURS, "mAP")]) == ["50.0", "not run"]


def test_differences_are_from_the_base_row(tmp_path):
    finish(tmp_path, "table2", (20, 30, 40, 39, 45, 50, 60))
    table = tables.comparison("table2", "smoke", runs_root=tmp_path)
    assert list(table.cells()[(OURS, "Δ mAP")]) == ["-20.0", "-10.0", "", "-1.0", "+5.0", "+10.0", "+20.0"]
    assert list(table.cells()[(PAPER, "Δ mAP")]) == ["-13.2", "-2.9", "", "+0.2", "+1.2", "+1.4", "+2.0"]
    assert "from the row DFE" in table.caption


def test_several_seeds_are_a_mean_and_a_deviation(tmp_path):
    finish(tmp_path, "table5", (40, 30), seed=0)
    finish(tmp_path, "table5", (50, 48), seed=1)
    finish(tmp_path, "table5", (60, None), seed=2)
    table = tables.comparison("table5", "smoke", seeds=(0, 1, 2), runs_root=tmp_path)
    assert list(table.cells()[(OURS, "mAP")]) == ["<b>50.0 ± 10.0</b>", "<u>39.0 ± 12.7 (1 not run)</u>"]
    # Paired by seed: -10 and -2; the seed that only one of them has says nothing of their difference.
    assert list(table.cells()[(OURS, "Δ mAP")]) == ["", "-6.0 ± 5.7"]
    assert "seeds 0, 1, 2 (mean ± standard deviation)" in table.caption and "1 of 6 runs are missing" in table.caption


def test_the_caption_says_where_the_numbers_are_from(tmp_path):
    finish(tmp_path, "table5", (40, 30))
    text = tables.comparison("table5", "smoke", runs_root=tmp_path).caption
    for part in ("profile smoke", "data synthetic smoke-0", "seed 0", "commit 0123abc", "device cpu, 1 threads"):
        assert part in text
    assert "compare orders and signs, not values" in text
    assert "compare orders" not in tables.comparison("table5", "paper", dataset="msmt17", runs_root=tmp_path).caption


def test_the_state_of_the_art_holds_the_published_methods(tmp_path):
    table = tables.comparison("table1", "smoke", runs_root=tmp_path)
    assert len(table.numbers) == 20
    cells = table.cells()
    assert cells.loc["NFormer [15]", ("Paper, Market1501", "mAP")] == "<u>91.1</u>"
    assert cells.loc["FusionReID* ↑", ("Paper, Market1501", "mAP")] == "<b>91.6</b>"
    assert cells.loc["FusionReID*", ("Paper, Market1501", "mAP")] == "–"  # lost
    assert cells.loc["MGN [30] ↑", (OURS, "mAP")] == ""
    assert cells.loc["TransReID [16]", ("", "backbone")] == "ViT-B/16*"
    assert any(note.startswith("FusionReID*, Market1501: lost") for note in table.notes)


def test_backbones_show_three_features_a_pair(tmp_path):
    table = tables.comparison("table6", "smoke", runs_root=tmp_path)
    assert len(table.numbers) == 6 + 9 * 3
    row = table.numbers.loc[("ResNet50 + ViT-B/16*", "transformer_fused, f'_t,L")]
    assert row[(PAPER, "mAP")] == 67.8
    assert [label[1] for label in table.numbers.index[:7]] == ["f"] * 6 + ["cnn_fused, f'_c,L"]
    assert any("107.0 stands for 108.0" in note for note in table.notes)


def test_costs_at_both_scales(tmp_path):
    table = tables.comparison("table3", "smoke", runs_root=tmp_path, costs="paper")
    for cost in ("parameters (M)", "FLOPs (G)"):
        ours = table.numbers[("Ours, at the paper's scale, one HTM", cost)]
        assert (ours - table.numbers[("Paper, one HTM", cost)]).abs().max() < 0.15
    small = tables.comparison("table5", "smoke", runs_root=tmp_path, costs="profile").numbers
    assert (small[(OURS, "parameters (M)")] < 2).all()


def test_it_survives_where_styles_are_stripped(tmp_path):
    finish(tmp_path, "table2", (20, 30, 40, 39, 45, 50, 60))
    table = tables.comparison("table2", "smoke", runs_root=tmp_path)
    html = table.show().to_html()
    assert "<b>69.5</b>" in html and "<u>68.9</u>" in html and "<b>60.0</b>" in html
    assert table.caption.split(".")[0] in html
    assert table._repr_html_() == tables.comparison("table2", "smoke", runs_root=tmp_path)._repr_html_()
    assert repr(table) == table.markdown()
    text = table.markdown()
    assert "**69.5**" in text and "<u>68.9</u>" in text
    assert r"ViT-B/16\*" in text and r"FusionReID\*" in text
    widths = {line.replace(r"\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_save_writes_both_copies(tmp_path):
    finish(tmp_path, "table5", (40, 30), seed=0)
    finish(tmp_path, "table5", (50, 48), seed=1)
    table = tables.comparison("table5", "smoke", seeds=(0, 1), runs_root=tmp_path)
    assert tables.save(table, tmp_path / "figures" / "07_pooling") is table
    assert (tmp_path / "figures" / "07_pooling.md").read_text(encoding="utf-8") == table.markdown()
    read = pd.read_csv(tmp_path / "figures" / "07_pooling.csv")
    assert list(read["variant"]) == ["GeM", "GAP"]
    assert list(read[f"{PAPER}: mAP"]) == [69.5, 68.6] and list(read[f"{OURS}: mAP"]) == [45, 39]
    assert read[f"{OURS}: mAP std"].iloc[0] == pytest.approx(7.0711)
    assert set(read["caption"]) == {table.caption}
