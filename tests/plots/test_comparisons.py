"""Differences and the plane are drawn from the numbers given."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fusionreid import plots

RANDOM = np.random.default_rng(0)
TITLES = {"paper": "Paper", "real": "Real", "synthetic": "Synthetic", "own": "Own run"}
MIDDLES = {"paper": 1.0, "real": 0.5, "synthetic": math.nan, "own": 3.0}
POINTS = pd.DataFrame(
    [
        [case, metric, source, middle + step, middle + step - 0.75, middle + step + 0.75]
        for metric in ("mAP", "rank-1")
        for step, case in enumerate(("DFE + LRU", "DFE + LRU + SEU"))
        for source, middle in MIDDLES.items()
    ],
    columns=["case", "metric", "source", "difference", "low", "high"],
)
POINTS.loc[POINTS["source"] != "real", ["low", "high"]] = math.nan
PLANE = pd.DataFrame(
    {
        "feature": np.repeat(["CNN", "Transformer"], 9),
        "x": RANDOM.random(18),
        "y": RANDOM.random(18),
        "cue": list("abc") * 6,
        "split": (["query"] * 3 + ["gallery"] * 6) * 2,
    }
)
HEADS = pd.DataFrame(
    [
        [epoch, layer, unit, branch, head, 1 - 0.01 * epoch * layer * head]
        for epoch in (0, 5, 10)
        for layer in (1, 2)
        for unit in ("seu", "mfu")
        for branch in ("cnn", "transformer")
        for head in (1, 2, 3)
    ],
    columns=["epoch", "layer", "unit", "branch", "head", "entropy"],
)
COSTS = pd.DataFrame(
    [
        [feature, replaced, -0.5, 0.25]
        for replaced in ("all", "seu", "mfu", "layer 1", "layer 2")
        for feature in ("all", "cnn_fused", "transformer_fused")
    ],
    columns=["feature", "replaced", "difference", "half"],
)
FIGURES = {
    "attention_and_mean": lambda: plots.attention_and_mean(HEADS, COSTS),
    "differences": lambda: plots.differences(POINTS, titles=TITLES, label="less that of DFE"),
    "plane": lambda: plots.plane(PLANE, "cue"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_twin(name, saved_twin):
    assert not saved_twin(FIGURES[name]()).empty


def test_every_public_function_is_drawn_here(public_functions):
    assert public_functions("comparisons") <= set(FIGURES)


def drawn(axes) -> dict[str, list[float]]:
    """The x of the points of each source, by their label."""
    return {line.get_label(): line.lines[0].get_xdata().tolist() for line in axes.containers}


def test_thick_lines_are_means_of_heads_and_thin_ones_the_least_even_head():
    left, right = plots.attention_and_mean(HEADS, COSTS).axes
    ends = {}
    for line in left.lines:
        if len(line.get_ydata()) == 3:
            ends.setdefault(line.get_linewidth(), []).append(line.get_ydata()[-1])
    assert sorted(ends[2]) == pytest.approx([0.6, 0.6, 0.8, 0.8])
    assert sorted(ends[0.8]) == pytest.approx([0.4, 0.4, 0.7, 0.7])
    assert [line.get_xdata().tolist() for line in right.lines[:3]] == [[-0.5] * 5] * 3
    segments = right.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[-0.75, -0.25]] * 5
    assert [label.get_text() for label in right.get_yticklabels()][:2] == ["all", "seu"]


def test_differences_are_dots_with_intervals():
    first, second = plots.differences(POINTS, titles=TITLES, label="less that of DFE").axes
    found = drawn(first)
    assert found == {"Paper": [1, 2], "Real, 95 % interval": [0.5, 1.5], "Own run": [3, 4]}
    (segments,) = [lines.lines[2][0].get_segments() for lines in first.containers if
                   lines.get_label().startswith("Real")]  # fmt: skip
    ends = [segment[:, 0].tolist() for segment in segments]
    assert ends == [[-0.25, 1.25], [0.75, 2.25]]
    assert second.get_xscale() == "linear", "up to six points"
    assert second.get_xlabel() == "rank-1 less that of DFE (points)"
    large = POINTS.copy()
    large.loc[large["metric"] == "rank-1", ["difference", "low", "high"]] *= 4
    first, second = plots.differences(large, titles=TITLES, label="less that of DFE").axes
    assert second.get_xlabel() == "rank-1 less that of DFE\n(points, logarithmic beyond ±2)"
    assert first.get_xscale() == second.get_xscale() == "symlog"
    assert first.get_xlim() == second.get_xlim(), "one scale: equal lengths are equal differences"
    low, high = second.get_xlim()
    assert all(low <= tick <= high for tick in second.get_xticks())


def test_a_single_run_is_hollow_and_what_was_not_measured_is_left_out():
    points = POINTS.query("metric == 'mAP' and source in ('paper', 'real')").copy()
    points.loc[points["case"] == "DFE + LRU", ["low", "high"]] = math.nan
    points.loc[len(POINTS)] = ["not run", "mAP", "paper", 1.0, math.nan, math.nan]
    (axes,) = plots.differences(points, titles=TITLES, label="more").axes
    real = [line for line in axes.containers if line.lines[0].get_color() != "black"][-2:]
    assert [line.lines[0].get_markerfacecolor() == "white" for line in real] == [False, True]
    assert [len(line.lines[0].get_xdata()) for line in real] == [1, 1]
    assert "not run" not in [label.get_text() for label in axes.get_yticklabels()]


def test_claims_have_one_panel():
    figure = plots.differences(POINTS.query("metric == 'mAP'"), titles=TITLES, label="more")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [*POINTS["case"].unique()]


def test_sources_of_a_case_lie_beside_each_other():
    axes = plots.differences(POINTS, titles=TITLES, label="more").axes[0]
    heights = [line.lines[0].get_ydata()[0] for line in axes.containers]
    assert heights == sorted(heights) and len(set(heights)) == 3
    assert max(map(abs, heights)) < 0.5


def test_missing_runs_are_gaps():
    nothing = POINTS.assign(difference=POINTS["difference"].where(POINTS["source"] == "own"))
    figure = plots.differences(nothing, titles=TITLES, label="more")
    assert drawn(figure.axes[0]) == {"Own run": [3, 4]}
    assert figure.drawn["difference"].isna().sum() == 12


def test_every_feature_has_a_plane_and_every_value_a_colour():
    figure = plots.plane(PLANE, "cue")
    assert [axes.get_title() for axes in figure.axes] == ["CNN", "Transformer"]
    for axes in figure.axes:
        colours = axes.collections[0].get_facecolors()
        assert len(np.unique(colours, axis=0)) == 3
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["cue", "a", "b", "c", "split", "query", "gallery"]
