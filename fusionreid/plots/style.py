"""The one style of all figures: colours, dashes and markers, and how a figure is saved."""

import functools
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from ..config import LABELS, SYMBOLS
from ..files import atomic_write

# Colour-blind readers can tell these apart: Okabe and Ito, "Color Universal Design" (2008).
BLACK = "#000000"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILLION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#6E6E6E"

# A branch has a colour. A stage has a dash and a marker, so that a print in grey still reads.
CNN = {"color": BLUE}
TRANSFORMER = {"color": VERMILLION}
BACKBONE = {"linestyle": ":", "marker": "o"}
REFINED = {"linestyle": "--", "marker": "s"}
FUSED = {"linestyle": "-", "marker": "^"}
FEATURE_STYLES = {
    "cnn": CNN | BACKBONE,
    "transformer": TRANSFORMER | BACKBONE,
    "cnn_refined": CNN | REFINED,
    "transformer_refined": TRANSFORMER | REFINED,
    "cnn_fused": CNN | FUSED,
    "transformer_fused": TRANSFORMER | FUSED,
    "all": {"color": BLACK, "linestyle": "-", "marker": "D"},
}
FEATURE_LABELS = {name: f"{label}, ${SYMBOLS[name]}$" for name, label in LABELS.items()}
# A source of numbers, as `compare.SOURCES`: the paper is hollow.
SOURCE_STYLES = {
    "paper": {"color": BLACK, "marker": "D", "markerfacecolor": "none", "linestyle": ":"},
    "real": {"color": GREEN, "marker": "o", "linestyle": ":"},
    "synthetic": {"color": PURPLE, "marker": "s", "linestyle": ":"},
    "own": {"color": GREY, "marker": "|", "markersize": 9, "linestyle": ":"},
}

LINEAR = 2  # points of accuracy up to which a logarithmic scale of differences is linear
TICKS = (-20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20)
MARKER = 6  # points, the least in a legend
SHEET = Path(__file__).with_name("figures.mplstyle")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Decorates a drawing function: it draws in this style.

    pyplot forgets the figure afterwards. Otherwise a notebook would show it twice.
    """

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure:
        with plt.style.context(SHEET):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return wrapper


def scale_differences(axis, label: str) -> None:
    """Gives an axis, x or y, the scale of differences in accuracy, and a label.

    It is linear up to six points. Where some are larger, it is logarithmic beyond `LINEAR`, so that
    small differences can be told apart beside large ones or beside wide intervals.
    """
    if max(map(abs, axis.get_view_interval())) <= 6:
        axis.set_label_text(f"{label} (points)")
        return
    set_scale = getattr(axis.axes, f"set_{axis.axis_name}scale")
    set_scale("symlog", linthresh=LINEAR, linscale=0.5)
    low, high = axis.get_view_interval()
    axis.set_ticks([tick for tick in TICKS if low <= tick <= high])
    axis.set_major_formatter("{x:g}")
    axis.axes.minorticks_off()
    axis.set_label_text(f"{label}\n(points, logarithmic beyond ±{LINEAR})")


def legend_below(figure: Figure, axes, columns: int) -> None:
    """Puts one legend, of the lines of `axes`, below all panels.

    A heading, to which seaborn gives a marker of no size, is bold. Small markers become larger and
    opaque: in pale dots, colours are hard to tell apart.
    """
    legend = figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.4,
    )
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        size = handle.get_markersize() if isinstance(handle, Line2D) else MARKER
        if size == 0:
            text.set_fontweight("bold")
        elif size < MARKER:
            handle.set(markersize=MARKER, alpha=1)


def save(figure: Figure, name: str, folder: str | Path = "figures") -> Figure:
    """Writes `<folder>/<name>.png`, and the numbers drawn, `figure.drawn`, as `<name>.csv`.

    Each file is written aside and then renamed. Returns the figure, so that a cell which ends in
    `save(...)` shows it.
    """
    picture = Path(folder) / f"{name}.png"
    with plt.style.context(SHEET), atomic_write(picture) as temporary:
        dpi = getattr(figure, "saved_dpi", None)
        figure.savefig(temporary, dpi=dpi)
        # Without transparency, which nothing uses, and without the version of matplotlib.
        Image.open(temporary).convert("RGB").save(temporary)
    with atomic_write(picture.with_suffix(".csv")) as temporary:
        figure.drawn.to_csv(temporary, index=False, float_format="%.6g")
    return figure
