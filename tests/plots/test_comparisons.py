"""Differences and the plane are drawn from the numbers given."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fusionreid import plots

RANDOM = np.random.default_rng(0)
TITLES = {"paper": "Paper", "recorded": "Recorded", "ours": "Own run"}
POINTS = pd.DataFrame(
    [
        [case, metric, 1.0, recorded, recorded - 0.75, recorded + 0.75, 3.0]
        for metric in ("mAP", "rank-1")
        for case, recorded in (("DFE + LRU", 0.5), ("DFE + LRU + SEU", 1.5))
    ],
    columns=["case", "metric", "paper", "recorded", "low", "high", "ours"],
)
PLANE = pd.DataFrame(
    {
        "x": RANDOM.random(9),
        "y": RANDOM.random(9),
        "cue": list("abc") * 3,
        "split": ["query"] * 3 + ["gallery"] * 6,
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


def labelled(axes, label):
    """The x of the points with a label; nan is a gap."""
    (points,) = [points for points in axes.collections if points.get_label() == label]
    return np.ma.filled(points.get_offsets(), np.nan)[:, 0].tolist()


def test_lines_are_means_of_heads_in_a_band_from_the_lowest_to_the_highest():
    left, right = plots.attention_and_mean(HEADS, COSTS).axes
    means = sorted(line.get_ydata()[-1] for line in left.lines[:4])
    assert means == pytest.approx([0.6, 0.6, 0.8, 0.8])
    lowest = [band.get_paths()[0].vertices[:, 1].min() for band in left.collections]
    assert sorted(lowest) == pytest.approx([0.4, 0.4, 0.7, 0.7])
    assert [line.get_xdata().tolist() for line in right.lines[:3]] == [[-0.5] * 5] * 3
    segments = right.collections[0].get_segments()
    assert [segment[:, 0].tolist() for segment in segments] == [[-0.75, -0.25]] * 5
    assert [label.get_text() for label in right.get_yticklabels()][:2] == ["all", "seu"]


def test_differences_are_dots_with_intervals():
    first, second = plots.differences(POINTS, titles=TITLES, label="less that of DFE").axes
    (interval,) = [lines for lines in first.collections if hasattr(lines, "get_segments")]
    assert [segment[:, 0].tolist() for segment in interval.get_segments()] == [
        [-0.25, 1.25],
        [0.75, 2.25],
    ]
    assert first.lines[0].get_xdata().tolist() == [0.5, 1.5]
    assert labelled(first, "Paper") == [1, 1]
    assert labelled(first, "Own run") == [3, 3]
    assert second.get_xlabel() == "Rank-1 less that of DFE (points)"


def test_a_recorded_difference_without_an_interval_has_no_dot():
    lone = POINTS.assign(low=math.nan, high=math.nan)
    axes = plots.differences(lone, titles=TITLES, label="more").axes[0]
    assert not np.isfinite(np.asarray(axes.lines[0].get_xdata(), float)).any()


def test_missing_runs_are_gaps():
    nothing = POINTS.assign(recorded=math.nan, low=math.nan, high=math.nan)
    figure = plots.differences(nothing, titles=TITLES, label="more")
    assert figure.drawn["recorded"].isna().all()
    assert labelled(figure.axes[0], "Own run") == [3, 3]


def test_without_a_difference_of_the_paper_the_legend_has_none():
    axes = plots.differences(POINTS.assign(paper=math.nan), titles=TITLES, label="more").axes[0]
    assert "Paper" not in axes.get_legend_handles_labels()[1]


def test_every_value_of_the_plane_has_a_colour():
    axes = plots.plane(PLANE, "cue").axes[0]
    colours = axes.collections[0].get_facecolors()
    assert len(np.unique(colours, axis=0)) == 3
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["cue", "a", "b", "c", "split", "query", "gallery"]
