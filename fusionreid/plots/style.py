"""One look for every figure: colours that colour-blind readers tell apart, legible type, and how a figure is saved."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..config import LABELS, SYMBOLS
from ..files import atomic_write

# Okabe and Ito, "Color Universal Design" (2008).
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY, YELLOW = "#6E6E6E", "#F0E442"

# A branch is a colour, a stage is a dash and a marker, so that a figure printed without colour still reads.
BRANCH_COLOURS = {"cnn": BLUE, "transformer": VERMILLION}
_STAGES = {"": (":", "o"), "_refined": ("--", "s"), "_fused": ("-", "^")}
FEATURE_STYLES = {
    branch + stage: dict(color=colour, linestyle=dash, marker=marker)
    for stage, (dash, marker) in _STAGES.items()
    for branch, colour in BRANCH_COLOURS.items()
} | {"all": dict(color=BLACK, linestyle="-", marker="D")}
FEATURE_LABELS = {name: f"{label}, ${SYMBOLS[name]}$" for name, label in LABELS.items()}
MEASURES = {"mAP": ("mAP", GREEN), "rank-1": ("Rank-1", PURPLE)}

# Of things that are neither branches nor measures: the branches' colours come last.
PALETTE = (GREEN, ORANGE, PURPLE, SKY, BLACK, GREY, BLUE, VERMILLION)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HEAT = "inferno"

RC = matplotlib.rc_params_from_file(
    Path(__file__).with_name("figures.mplstyle"), use_default_template=False
)


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a drawing function in this style, and takes its figure out of pyplot's list: a notebook shows it once."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            figure = draw(*args, **kwargs)
            plt.close(figure)
            return figure

    return wrapper


def expect_columns(data: pd.DataFrame, needed: Sequence[str], function: str) -> None:
    if missing := [name for name in needed if name not in data.columns]:
        raise ValueError(
            f"{function}: expected columns {list(needed)}, missing {missing}, found {list(data.columns)}"
        )


def legend_below(figure: Figure, axes, columns: int) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.4,
    )


def with_numbers(figure: Figure, drawn: pd.DataFrame) -> Figure:
    figure.drawn = drawn
    return figure


def save(figure: Figure, name: str, folder: str | Path = "figures") -> Figure:
    """Writes `<folder>/<name>.png` and the numbers drawn, `figure.drawn`, as `<name>.csv`; each aside, then renamed.

    Returns the figure, so that a cell which ends in `save(...)` shows it.
    """
    with matplotlib.rc_context(RC), atomic_write(Path(folder) / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=getattr(figure, "saved_dpi", None),
                       bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})  # fmt: skip
    with atomic_write(Path(folder) / f"{name}.csv") as temporary:
        figure.drawn.to_csv(temporary, index=False, float_format="%.6g")
    return figure
