"""Curves of verification are those of the numbers given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fusionreid import plots
from fusionreid.evaluation.verification import Verification


def verification(height: float) -> Verification:
    """Three impostor pairs in a thousand come before all genuine pairs but a share."""
    far = np.array([0, 0, 0.003, 0.003, 1])
    return Verification(far, np.array([0, height, height, 0.9, 1]), {}, pd.DataFrame(), 10, 1000, 5)


CURVES = {"all": verification(0.5), "colour": verification(0.1)}
TABLES = {
    name: pd.DataFrame(
        {
            "predicted": [0.05, 0.55, 0.95],
            "observed": [0.01 * place, 0.5, 0.9],
            "weight": [0.5, 0.1, 0.4],
            "genuine": [1, 20, 300],
            "impostor": [900, 20, 3],
        }
    )
    for place, name in enumerate(("training people", "test people"))
}


@pytest.mark.parametrize(
    "figure", [lambda: plots.roc_curves(CURVES), lambda: plots.reliability_curves(TABLES)]
)
def test_a_figure_has_its_twin(figure, saved_twin):
    assert not saved_twin(figure()).empty


def test_every_public_function_is_drawn_here(public_functions):
    assert public_functions("roc") == {"roc_curves", "reliability_curves"}


def test_a_curve_is_of_the_last_point_whose_far_is_not_higher():
    figure = plots.roc_curves(CURVES)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    drawn = figure.drawn.set_index("FAR")
    assert drawn.index[0] == pytest.approx(1e-4) and drawn.index[-1] == pytest.approx(1)
    before = drawn[drawn.index < 0.003]
    after = drawn[(drawn.index > 0.003) & (drawn.index < 0.999)]
    assert set(before["all"]) == {0.5} and set(before["colour"]) == {0.1}
    assert set(after["all"]) == {0.9}
    every, colour = axes.lines
    assert every.get_label() == "all six, $f_a$" and colour.get_label() == "colour"
    assert every.get_color() != colour.get_color()
    np.testing.assert_allclose(every.get_ydata(), 100 * figure.drawn["all"])


def test_bins_are_beside_the_line_of_a_perfect_calibration():
    figure = plots.reliability_curves(TABLES)
    perfect, training, test = figure.axes[0].lines
    assert list(perfect.get_xdata()) == list(perfect.get_ydata()) == [0, 1]
    assert list(training.get_ydata()) == [0, 0.5, 0.9]
    assert list(test.get_xdata()) == [0.05, 0.55, 0.95] and test.get_ydata()[0] == 0.01
    assert test.get_label() == "test people"
    assert figure.drawn["pairs"].tolist() == 3 * ["training people"] + 3 * ["test people"]
