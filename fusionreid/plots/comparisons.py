"""The paper beside ours: differences in accuracy, the structures that differ (Fig. 4), and a plane of images."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from . import style
from .style import expect_columns, legend_below, styled, with_numbers


@styled
def differences(data: pd.DataFrame, *, titles: Mapping[str, str], label: str) -> Figure:
    """Differences in accuracy: recorded ones as dots, if they have an interval, beside the paper's.

    Args:
        data: a row per case and metric, as `compare.dots` and `claims.check` return: `case`, `metric`, `paper`,
            `recorded`, its interval from `low` to `high`, and `ours`, all in points (missing: a gap).
        titles: what "paper", "recorded" and "ours" are.
        label: of the axes; it follows the name of the metric.
    """
    needed = ["case", "metric", "paper", "recorded", "low", "high", "ours"]
    expect_columns(data, needed, "differences")
    cases = list(data["case"].unique())
    places = np.arange(len(cases))
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.4 * len(cases) + 1.9), sharey=True)
    for axes, (metric, (name, colour)) in zip(panels, style.MEASURES.items(), strict=True):
        rows = data[data["metric"] == metric].set_index("case").reindex(cases)
        axes.hlines(places, rows["low"], rows["high"], color=colour, linewidth=2.5, alpha=0.6)
        hollow = dict(marker="D", facecolors="none", edgecolors=style.BLACK)
        if data["paper"].notna().any():
            axes.scatter(rows["paper"], places - 0.2, s=30, label=titles["paper"], **hollow)
        known = rows["recorded"].where(rows["low"].notna())
        axes.scatter(
            known, places, s=40, color=colour, label=f"{titles['recorded']}, 95 % interval"
        )
        axes.scatter(
            rows["ours"], places + 0.2, s=60, marker="|", color=style.GREY, label=titles["ours"]
        )
        axes.axvline(0, color=style.GREY, linewidth=1, zorder=1)
        axes.set(xlabel=f"{name} {label} (points)")
    panels[0].set(yticks=places, yticklabels=cases, ylim=(len(cases) - 0.5, -0.5))
    legend_below(figure, panels[0], 3)
    return with_numbers(figure, data[needed])


@styled
def structures(units: Mapping[str, tuple[Sequence[str], bool, bool]]) -> Figure:
    """Fig. 4: one HTM of each structure. A box over both lines is one unit that both branches share.

    `units` are by the structure's name the order of "seu" and "mfu", and whether each of the two is shared.
    """
    figure, panels = plt.subplots(1, len(units), figsize=(2.5 * len(units), 1.9), squeeze=False)
    drawn = []
    for axes, (name, (order, share_seu, share_mfu)) in zip(panels[0], units.items(), strict=True):
        for height, branch in ((1, "cnn"), (0, "transformer")):
            axes.annotate("", (len(order) + 0.45, height), (-0.55, height),
                          zorder=0, arrowprops=dict(arrowstyle="->", color=style.BRANCH_COLOURS[branch]))  # fmt: skip
        for place, unit in enumerate(order):
            shared = share_seu if unit == "seu" else share_mfu
            drawn.append({"structure": name, "place": place, "unit": unit, "shared": shared})
            colour = style.GREEN if unit == "seu" else style.PURPLE
            for low, high in [(-0.3, 1.3)] if shared else [(-0.3, 0.3), (0.7, 1.3)]:
                axes.add_patch(
                    plt.Rectangle(
                        (place, low), 0.7, high - low, facecolor="white", edgecolor=colour, lw=2
                    )
                )
                axes.text(
                    place + 0.35,
                    (low + high) / 2,
                    unit.upper(),
                    ha="center",
                    va="center",
                    color=colour,
                )
        axes.set(title=name, xlim=(-0.6, 2.5), ylim=(-0.5, 1.5))
        axes.axis("off")
    for branch, height in (("CNN", 1.0), ("Transformer", 0.0)):
        panels[0][0].text(-0.65, height, branch, ha="right", va="center", fontsize=9)
    return with_numbers(figure, pd.DataFrame(drawn))


@styled
def plane(points: pd.DataFrame, colour: str) -> Figure:
    """Images as points of a plane: queries as squares, gallery images as dots, a colour for each value (nine differ).

    `points` have the columns `x`, `y`, `split` ("query" or "gallery") and `colour`.
    """
    expect_columns(points, ["x", "y", "split", colour], "plane")
    figure, axes = plt.subplots(figsize=(7.0, 5.0))
    values = sorted(points[colour].unique())
    looks = {"hue_order": values, "palette": sns.color_palette((*style.PALETTE, style.YELLOW), len(values)),
             "markers": {"query": "s", "gallery": "o"}, "s": 10, "alpha": 0.7, "linewidth": 0}  # fmt: skip
    sns.scatterplot(points, x="x", y="y", hue=colour, style="split", **looks)
    axes.set_axis_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return with_numbers(figure, points)
