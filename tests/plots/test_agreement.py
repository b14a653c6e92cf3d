"""The figures of the paper's differences beside ours: what is drawn, gaps, and errors that name columns."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from fusionreid.plots import curves as plots

PAIRS = pd.DataFrame([
    {"pair": pair, "feature": feature, "paper": 60.0 + place, "ours": math.nan if pair == "B" else 70.0 - place}
    for pair in ("A", "B")
    for place, feature in enumerate(("cnn", "transformer", "cnn_fused", "transformer_fused", "all"))
])  # fmt: skip
SIGNS = pd.DataFrame({
    "experiment": ["table2", "table2", "table3", "figure5"],
    "case": list("abcd"),
    "metric": ["mAP", "rank-1", "rank-1", "mAP"],
    "paper": [1.0, 0.2, -0.1, math.nan],
    "ours": [3.0, -0.5, -2.0, 1.0],
})  # fmt: skip


def test_pairs_draw_both_sides_and_leave_gaps(tmp_path):
    figure = plots.backbone_pairs(PAIRS, ours_title="Ours", paper_title="Paper")
    assert [axes.get_title() for axes in figure.axes] == ["Paper", "Ours"]
    plots.save(figure, "pairs", folder=tmp_path)
    assert len(pd.read_csv(tmp_path / "pairs.csv")) == len(PAIRS)


def test_signs_are_turned_to_the_papers_direction():
    figure = plots.signs(SIGNS)
    assert [axes.get_title() for axes in figure.axes] == [
        "mAP: 1 of 1 with the paper's sign",
        "Rank-1: 1 of 2 with the paper's sign",
    ]
    assert figure.drawn["case"].tolist() == ["a", "b", "c"]  # the paper does not print the last


def test_signs_without_any_run():
    figure = plots.signs(SIGNS.assign(ours=math.nan))
    assert figure.drawn.empty


@pytest.mark.parametrize("draw, data, options", [
    (plots.backbone_pairs, PAIRS, {"ours_title": "", "paper_title": ""}),
    (plots.signs, SIGNS, {}),
])  # fmt: skip
def test_missing_columns_are_named(draw, data, options):
    with pytest.raises(ValueError, match="missing .*'ours'"):
        draw(data.drop(columns="ours"), **options)


def test_bars_of_nothing_are_gaps():
    rows = pd.DataFrame({"name": ["A", "B"], "mAP": [math.nan] * 2, "rank-1": [math.nan] * 2})
    figure = plots.component_bars(rows, rows.fillna(50.0), ours_title="Ours", paper_title="Paper")
    assert {text.get_text() for text in figure.axes[1].texts} == {"no run"}
