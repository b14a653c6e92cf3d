"""Curves are those of the numbers given: by rank, by epoch, by depth and by dimension."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fusionreid import plots
from fusionreid.config import FEATURES, LABELS

CURVES = {"CNN": np.linspace(0.4, 0.9, 50), "FusionReID": np.linspace(0.6, 1.0, 50)}
LOSSES = [f"{loss}/{name}" for loss in ("cross_entropy", "triplet") for name in FEATURES]
TITLES = {"paper": "Paper", "recorded": "Recorded", "ours": "Own run"}


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


def depths(*seeds: int) -> pd.DataFrame:
    rows = []
    for depth in range(1, 7):
        for place, name in enumerate(LABELS):
            for seed in seeds:
                accuracy = {"mAP": 50 + depth + seed + 3 * place, "rank-1": 60 + depth}
                rows.append({"depth": depth, "feature": name, "seed": seed} | accuracy)
    return pd.DataFrame(rows, columns=["depth", "feature", "seed", "mAP", "rank-1"])


DEPTHS = {"paper": depths(0), "recorded": depths(0, 1), "ours": depths(1)}
DIMENSIONS = pd.DataFrame(
    {
        "dim": [384, 768, 1536],
        "feature": "all",
        "mAP": [60, 61, 60.5],
        "rank-1": [80, 82, 81],
        "parameters": [1.0, 2, 3],
        "macs": [0.1, 0.2, 0.3],
    }
)
WIDTHS = {
    "paper": DIMENSIONS,
    "recorded": DIMENSIONS.assign(here=[48, 96, 192]),
    "ours": DIMENSIONS,
}
FIGURES = {
    "cmc_curves": lambda: plots.cmc_curves(CURVES),
    "training_curves": lambda: plots.training_curves(metrics()),
    "probe_curves": lambda: plots.probe_curves(right_choices()),
    "map_by_epoch": lambda: plots.map_by_epoch(metrics(), baselines={"colour histogram": 0.2}),
    "accuracy_curves": lambda: plots.accuracy_curves("depth", DEPTHS, titles=TITLES),
    "accuracy_curves by dimension": lambda: plots.accuracy_curves("dim", WIDTHS, titles=TITLES),
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
    assert len(lines) == len(FEATURES)
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


def test_a_line_is_the_mean_over_seeds_in_a_band_of_one_deviation():
    above, _, below, _ = plots.accuracy_curves("depth", DEPTHS, titles=TITLES).axes
    assert below.lines[0].get_ydata()[0] == pytest.approx(51.5)
    assert len(below.collections) == 7, "one band for each feature"
    deviation = np.std([51, 52], ddof=1)
    heights = below.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(51.5 - deviation)
    assert len(above.collections) == 0, "the paper has one value a point"


def test_the_own_run_is_drawn_as_thin_marks():
    above, _, below, _ = plots.accuracy_curves("depth", DEPTHS, titles=TITLES).axes
    assert len(above.lines) == 7
    assert len(below.lines) == 14
    assert min(line.get_ydata()[0] for line in below.lines[7:]) == 52


def test_the_papers_curves_have_axes_of_their_own():
    sides = DEPTHS | {"paper": depths(0).assign(mAP=10.0)}
    above, _, below, _ = plots.accuracy_curves("depth", sides, titles=TITLES).axes
    assert above.get_title() == "Paper"
    assert set(above.lines[0].get_ydata()) == {10.0}
    assert below.get_title() == "Recorded\nthin marks: Own run"
    assert min(below.lines[0].get_ydata()) > 50


def test_dimensions_say_their_costs_and_their_width_here():
    above, _, below, _ = plots.accuracy_curves("dim", WIDTHS, titles=TITLES).axes
    paper = [label.get_text() for label in above.get_xticklabels()]
    recorded = [label.get_text() for label in below.get_xticklabels()]
    assert paper == ["384\n1 M\n0.1 G", "768\n2 M\n0.2 G", "1536\n3 M\n0.3 G"]
    assert recorded[0] == "384\n(48 here)\n1 M\n0.1 G"


def test_missing_runs_are_gaps():
    sides = DEPTHS | {"recorded": depths()}
    below = plots.accuracy_curves("depth", sides, titles=TITLES).axes[2]
    assert len(below.lines) == 7, "marks of the own run alone"
    assert [label.get_text() for label in below.get_xticklabels()] == list("123456")
    nothing = sides | {"ours": depths()}
    assert not plots.accuracy_curves("depth", nothing, titles=TITLES).axes[2].lines


def test_the_numbers_say_whose_they_are():
    drawn = plots.accuracy_curves("depth", DEPTHS, titles=TITLES).drawn
    assert drawn["source"].unique().tolist() == ["Paper", "Recorded", "Own run"]
