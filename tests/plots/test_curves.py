"""Curves are those of the numbers given: by rank, by epoch, by depth and by dimension."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from fusionreid import plots
from fusionreid.config import FEATURES, LABELS

CURVES = {"CNN": np.linspace(0.4, 0.9, 50), "FusionReID": np.linspace(0.6, 1.0, 50)}
LOSSES = [f"{loss}/{name}" for loss in ("cross_entropy", "triplet") for name in FEATURES]
TITLES = {"paper": "Paper", "real": "Real", "synthetic": "Synthetic", "own": "Own run"}


def metrics() -> pd.DataFrame:
    """Two steps and one evaluation of each of four epochs."""
    steps = []
    evaluations = []
    for epoch in range(1, 5):
        for step in range(2):
            losses = {loss: 1 / epoch + 0.01 * place for place, loss in enumerate(LOSSES)}
            steps.append({"epoch": epoch, "learning_rate": 0.1 + step} | losses)
        for place, name in enumerate(LABELS):
            mean = 0.2 * epoch - 0.02 * place
            evaluations.append({"epoch": epoch, "feature": name, "mAP": mean})
    return pd.DataFrame(steps + evaluations)


def right_choices() -> pd.DataFrame:
    """Two cues of each kind at three strengths, by "all" and the six features."""
    rows = []
    cues = {"bag": "local", "hair": "local", "build": "global", "gait": "global"}
    for place, feature in enumerate(("all", *FEATURES)):
        for cue, kind in [*cues.items(), ("all", "local")]:
            for strength in (1, 2, 3):
                accuracy = 0.5 + 0.1 * strength + 0.01 * place
                row = {"feature": feature, "kind": kind, "cue": cue, "strength": strength}
                ends = {"low": accuracy - 0.1, "high": accuracy + 0.1}
                rows.append(row | {"accuracy": accuracy} | ends)
    return pd.DataFrame(rows)


def points(x: str, places: list[int], sources: dict[str, float]) -> pd.DataFrame:
    """Fig. 5 or 6: mAP grows by a point from place to place, from the value of each source on."""
    rows = []
    for source, start in sources.items():
        for step, place in enumerate(places):
            for feature in LABELS:
                row = {"metric": "mAP", "source": source, "feature": feature, x: place}
                row |= {"value": start + step, "difference": step - 1, "here": place // 8}
                rows.append(row | {"low": step - 1.5, "high": step - 0.5})
    rows = pd.DataFrame(rows)
    rows.loc[rows["source"] == "paper", ["low", "high"]] = np.nan
    return rows


DEPTHS = points("depth", [1, 2, 3, 4, 5, 6], {"paper": 69, "real": 60, "own": 50})
DIMENSIONS = points("dim", [384, 768, 1536], {"paper": 69, "synthetic": 50})
DIMENSIONS = DIMENSIONS.assign(parameters=1.0, macs=0.1)
FIGURES = {
    "cmc_curves": lambda: plots.cmc_curves(CURVES),
    "training_curves": lambda: plots.training_curves(metrics()),
    "probe_curves": lambda: plots.probe_curves(right_choices()),
    "map_by_epoch": lambda: plots.map_by_epoch(metrics(), baselines={"colour histogram": 0.2}),
    "feature_curves": lambda: plots.feature_curves(DEPTHS, titles=TITLES),
    "difference_curves": lambda: plots.difference_curves(DEPTHS, "depth", titles=TITLES),
    "by dimension": lambda: plots.difference_curves(DIMENSIONS, "dim", titles=TITLES),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_twin(name, saved_twin):
    assert not saved_twin(FIGURES[name]()).empty


def test_every_public_function_is_drawn_here(public_functions):
    assert public_functions("curves") <= set(FIGURES)


def test_a_cmc_curve_ends_at_rank_20():
    figure = plots.cmc_curves(CURVES)
    assert figure.drawn["rank"].tolist() == list(range(1, 21))
    np.testing.assert_array_equal(figure.drawn["FusionReID"], CURVES["FusionReID"][:20])
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), 100 * CURVES["FusionReID"][:20])
    first, second = figure.axes[0].lines
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert first.get_label() == "CNN (rank-1 40.0 %)"


def test_a_short_cmc_curve_ends_earlier():
    assert plots.cmc_curves({"CNN": CURVES["CNN"][:7]}).drawn["rank"].max() == 7


def test_a_cue_has_a_panel_and_a_feature_a_line():
    figure = plots.probe_curves(right_choices())
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["bag (local)", "hair (local)", "build (global)", "gait (global)"]
    chance, *lines = figure.axes[2].lines
    assert [line.get_label() for line in lines] == [
        r"CNN, $\hat{f}_c$",
        r"Transformer, $\hat{f}_t$",
    ]
    assert lines[0].get_ydata() == pytest.approx([61, 71, 81]) and chance.get_ydata()[0] == 50
    assert set(figure.drawn["cue"]) == {"bag", "hair", "build", "gait"}


def test_losses_are_means_over_the_steps_of_an_epoch():
    drawn = plots.training_curves(metrics()).drawn
    assert drawn["epoch"].tolist() == [1, 2, 3, 4]
    assert drawn["learning_rate"].tolist() == pytest.approx([0.6] * 4)
    steps = metrics()["triplet/cnn"].dropna()
    assert drawn["triplet/cnn"].tolist() == pytest.approx(steps[::2].tolist())


def test_a_single_branch_has_the_curves_of_its_features():
    alone = metrics()[["epoch", "learning_rate", "cross_entropy/cnn", "triplet/cnn"]]
    entropy, triplet, rate = plots.training_curves(alone).axes
    assert [line.get_label() for line in entropy.lines] == [r"CNN, $\hat{f}_c$"]
    assert len(triplet.lines) == 2, "the loss, and log 2"
    assert len(rate.lines) == 1


def test_baselines_are_level_lines():
    figure = plots.map_by_epoch(metrics(), baselines={"colour": 0.2, "untrained": 0.1})
    *features, colour, untrained = figure.axes[0].lines
    assert len(features) == len(LABELS)
    assert features[0].get_ydata() == pytest.approx([20, 40, 60, 80])
    assert set(colour.get_ydata()) == {20}
    assert untrained.get_label() == "untrained (10.0 %)"
    assert figure.drawn.set_index("feature")["mAP"]["colour"] == 0.2


def test_every_source_has_a_panel_with_a_line_for_each_feature():
    panels = plots.feature_curves(DEPTHS, titles=TITLES).axes
    assert [axes.get_title() for axes in panels] == ["Paper", "Real", "Own run"]
    assert [len(axes.lines) for axes in panels] == [7, 7, 7]
    assert panels[1].lines[0].get_ydata().tolist() == [60, 61, 62, 63, 64, 65]


def test_a_wide_interval_does_not_hide_small_differences():
    """An interval of 18 points to either side leaves a third of the height to two points."""
    wide = DEPTHS.copy()
    wide.loc[(wide["source"] == "real") & (wide["depth"] == 1), ["low", "high"]] = -18, 18
    (axes,) = plots.difference_curves(wide, "depth", titles=TITLES).axes
    values = [*axes.get_ylim(), -2, 2]
    bottom, top, low, high = axes.transData.transform([(1, value) for value in values])[:, 1]
    assert (high - low) / (top - bottom) > 1 / 3
    assert {-10, -1, 0, 1, 10} <= set(axes.get_yticks())


def test_points_of_one_run_are_hollow():
    single = DEPTHS.copy()
    single.loc[single["source"] == "real", ["low", "high"]] = math.nan
    hollow = []
    for points in (DEPTHS, single):
        (axes,) = plots.difference_curves(points, "depth", titles=TITLES).axes
        lines = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        hollow.append([len(line.get_xdata()) for line in lines])
    assert hollow[0][1] == 0 and hollow[1][1] == 5  # the reference point is on the axis, and full


def test_differences_of_all_sources_share_a_panel():
    (axes,) = plots.difference_curves(DEPTHS, "depth", titles=TITLES).axes
    assert axes.get_ylabel() == "mAP of all six,\nminus that of $L = 2$ (points)"
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["Paper", "Real", "Own run"]
    paper, real, own = axes.containers
    assert paper.lines[0].get_ydata().tolist() == [-1, 0, 1, 2, 3, 4]
    segments = real.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments][:2] == [[-1.5, -0.5], [-0.5, 0.5]]


def test_the_reference_point_is_drawn_at_zero():
    at_reference = DEPTHS["depth"] == 2
    gap = DEPTHS.assign(difference=DEPTHS["difference"].mask(at_reference))
    (axes,) = plots.difference_curves(gap, "depth", titles=TITLES).axes
    assert axes.containers[0].lines[0].get_ydata()[1] == 0


def test_dimensions_say_their_costs_and_their_width_here():
    (axes,) = plots.difference_curves(DIMENSIONS, "dim", titles=TITLES).axes
    first = axes.get_xticklabels()[0].get_text()
    assert first == "384\n(48 here)\n1 M\n0.1 G"


def test_a_source_with_a_single_point_has_no_curve():
    part = DEPTHS.assign(
        value=DEPTHS["value"].where((DEPTHS["depth"] == 2) | (DEPTHS["source"] != "real"))
    )
    features = plots.feature_curves(part, titles=TITLES)
    assert [axes.get_title() for axes in features.axes] == ["Paper", "Own run"]
    differences = plots.difference_curves(part, "depth", titles=TITLES)
    assert differences.axes[0].get_legend_handles_labels()[1] == ["Paper", "Own run"]
    for figure in (features, differences):
        assert set(figure.drawn["source"]) == {"paper", "own"}


def test_missing_runs_are_gaps():
    known = DEPTHS["depth"] < 4
    part = DEPTHS.assign(value=DEPTHS["value"].where(known | (DEPTHS["source"] == "paper")))
    figure = plots.feature_curves(part, titles=TITLES)
    assert figure.axes[1].lines[0].get_xdata().tolist() == [1, 2, 3]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == list("123456")
    assert set(figure.drawn["source"]) == {"paper", "real", "own"}
