"""One look for every figure: colours that colour-blind readers tell apart, legible type, and how a figure is saved."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from ..files import atomic_write

# Okabe and Ito, "Color Universal Design" (2008).
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
GREY = "#6E6E6E"
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)
HEAT = "inferno"

# A branch is a colour, a stage is a dash and a marker, so that a figure printed without colour still reads.
FEATURE_STYLES = {
    "cnn": dict(color=BLUE, linestyle=":", marker="o"),
    "transformer": dict(color=VERMILLION, linestyle=":", marker="o"),
    "cnn_refined": dict(color=BLUE, linestyle="--", marker="s"),
    "transformer_refined": dict(color=VERMILLION, linestyle="--", marker="s"),
    "cnn_fused": dict(color=BLUE, linestyle="-", marker="^"),
    "transformer_fused": dict(color=VERMILLION, linestyle="-", marker="^"),
    "all": dict(color=BLACK, linestyle="-", marker="D"),
}
FEATURE_LABELS = {
    "cnn": r"CNN, $\hat{f}_c$",
    "transformer": r"Transformer, $\hat{f}_t$",
    "cnn_refined": r"CNN refined, $f'_{c,0}$",
    "transformer_refined": r"Transformer refined, $f'_{t,0}$",
    "cnn_fused": r"CNN fused, $f'_{c,L}$",
    "transformer_fused": r"Transformer fused, $f'_{t,L}$",
    "all": r"all six, $f_a$",
}

RC = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": matplotlib.cycler(color=PALETTE),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "path",
    "svg.hashsalt": "fusionreid",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a drawing function in the house style.

    The figure is taken out of pyplot's list, so that a notebook shows it once, where it is the value of the cell.
    """

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with matplotlib.rc_context(RC):
            before = set(plt.get_fignums())
            try:
                return draw(*args, **kwargs)
            finally:
                for number in set(plt.get_fignums()) - before:
                    plt.close(number)

    return wrapper


def save(figure: Figure, name: str, data: pd.DataFrame | None = None, folder: str | Path = "figures") -> Figure:
    """Writes `<folder>/<name>.png` (200 dpi; grids of photographs 120) and its twin `<name>.csv`, aside, then renamed.

    Args:
        figure: from a function of `fusionreid.plots.curves`.
        name: without suffix; notebook NN's figures are called `NN_something`.
        data: the numbers drawn; by default those that the drawing function left in `figure.drawn`.
        folder: made if it is not there.

    Returns:
        the figure, so that a cell which ends in `save(...)` shows it.

    Raises:
        ValueError: `data` is not given and the figure carries no numbers.
    """
    data = getattr(figure, "drawn", None) if data is None else data
    if data is None:
        raise ValueError(f"save({name!r}): expected `data`, the numbers drawn; this figure carries none")
    with matplotlib.rc_context(RC):
        with atomic_write(Path(folder) / f"{name}.png") as temporary:
            dpi = getattr(figure, "saved_dpi", RC["savefig.dpi"])
            figure.savefig(temporary, format="png", dpi=dpi, bbox_inches="tight", pad_inches=0.06,
                           metadata={"Software": None})  # fmt: skip
        with atomic_write(Path(folder) / f"{name}.csv") as temporary:
            data.to_csv(temporary, index=False, float_format="%.6g")
    return figure
