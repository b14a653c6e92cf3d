"""What the tests of figures share."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fusionreid import plots


@pytest.fixture
def saved_twin(tmp_path):
    """Saves a figure, asserts that its picture is not blank, and returns the numbers saved."""

    def save(figure) -> pd.DataFrame:
        folder = tmp_path / "figures"
        assert plots.save(figure, "04_name", folder=folder) is figure
        assert plt.get_fignums() == [], "a notebook would show the figure twice"
        with Image.open(folder / "04_name.png") as picture:
            assert min(picture.size) > 150
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
        numbers = pd.read_csv(folder / "04_name.csv")
        assert list(numbers) == list(figure.drawn)
        assert len(numbers) == len(figure.drawn) > 0
        return numbers

    return save


@pytest.fixture
def public_functions():
    """The names of the drawing functions of a module that the package exports."""

    def names(module: str) -> set[str]:
        functions = {name: getattr(plots, name) for name in plots.__all__}
        return {
            name
            for name, function in functions.items()
            if function.__module__ == f"fusionreid.plots.{module}"
        }

    return names
