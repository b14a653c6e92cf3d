"""The style tells all features apart, and a figure is saved with its twin CSV."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from fusionreid import plots
from fusionreid.config import LABELS
from fusionreid.plots.style import FEATURE_LABELS, FEATURE_STYLES, legend_below, styled


def drawn_figure():
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    figure.drawn = pd.DataFrame({"x": [0, 1], "y": [0.1234567, 1]})
    return figure


def test_styles_tell_all_features_apart():
    looks = {name: tuple(sorted(look.items())) for name, look in FEATURE_STYLES.items()}
    assert list(looks) == list(FEATURE_LABELS) == list(LABELS)
    assert len(set(looks.values())) == len(LABELS)


@pytest.mark.parametrize("branch", ["cnn", "transformer"])
def test_a_branch_has_one_colour(branch):
    colours = {FEATURE_STYLES[branch + stage]["color"] for stage in ("", "_refined", "_fused")}
    assert len(colours) == 1


def test_a_styled_function_draws_in_the_style_and_leaves_no_trace():
    before = matplotlib.rcParams["axes.grid"]
    sizes = []

    @styled
    def draw():
        sizes.append(matplotlib.rcParams["axes.titlesize"])
        return drawn_figure()

    draw()
    assert sizes == [11]
    assert matplotlib.rcParams["axes.grid"] == before
    assert plt.get_fignums() == []


def test_a_legend_below_has_headings_and_marks_that_are_seen():
    figure, axes = plt.subplots()
    axes.plot([], [], "", label="top")
    axes.lines[0].set(marker="", markersize=0)
    axes.plot([], [], "s", markersize=2, alpha=0.5, label="coat")
    axes.plot([], [], "D", markersize=9, alpha=0.5, label="all")
    legend_below(figure, axes, 3)
    (legend,) = figure.legends
    assert [text.get_fontweight() for text in legend.get_texts()] == ["bold", "normal", "normal"]
    assert [mark.get_markersize() for mark in legend.legend_handles] == [0, 6, 9]
    assert [mark.get_alpha() for mark in legend.legend_handles[1:]] == [1, 0.5]
    plt.close(figure)


def test_a_figure_is_saved_with_its_numbers(tmp_path):
    figure = styled(drawn_figure)()
    assert plots.save(figure, "01_line", folder=tmp_path / "figures") is figure
    assert (tmp_path / "figures" / "01_line.csv").read_text() == "x,y\n0,0.123457\n1,1\n"
    assert (tmp_path / "figures" / "01_line.png").stat().st_size > 1000


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        plots.save(styled(drawn_figure)(), name, folder=tmp_path)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
