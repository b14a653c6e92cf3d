"""The paper beside ours: differences in accuracy. Attention beside a mean. Images in a plane."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .style import (
    BLACK,
    FEATURE_LABELS,
    FEATURE_STYLES,
    GREEN,
    GREY,
    MEASURES,
    PURPLE,
    legend_below,
    styled,
)


@styled
def differences(data: pd.DataFrame, *, titles: Mapping[str, str], label: str) -> Figure:
    """Differences in accuracy: the paper's, the recorded ones with intervals, and the reader's.

    Args:
        data: a row per case and metric, as `Results.dots` and `claims.judge` return: `case`,
            `metric`, `paper`, `recorded`, its interval from `low` to `high`, and `ours`, all in
            points. Missing values are gaps.
        titles: what "paper", "recorded" and "ours" are.
        label: of the axes; it follows the name of the metric.
    """
    cases = data["case"].unique()
    places = np.arange(len(cases))
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.4 * len(cases) + 1.9), sharey=True)
    for axes, (metric, (name, colour)) in zip(panels, MEASURES.items(), strict=True):
        rows = data[data["metric"] == metric].set_index("case").reindex(cases)
        axes.errorbar(
            rows["recorded"].where(rows["low"].notna()),
            places,
            xerr=(rows["high"] - rows["low"]) / 2,
            fmt="o",
            color=colour,
            label=f"{titles['recorded']}, 95 % interval",
        )
        if data["paper"].notna().any():
            axes.scatter(
                rows["paper"],
                places - 0.2,
                s=30,
                marker="D",
                facecolors="none",
                edgecolors=BLACK,
                label=titles["paper"],
            )
        axes.scatter(rows["ours"], places + 0.2, s=60, marker="|", color=GREY, label=titles["ours"])
        axes.axvline(0, color=GREY, linewidth=1, zorder=1)
        axes.set(xlabel=f"{name} {label} (points)")
    panels[0].set_yticks(places, cases)
    panels[0].set_ylim(len(cases) - 0.5, -0.5)
    legend_below(figure, panels[0], 3)
    figure.drawn = data[["case", "metric", "paper", "recorded", "low", "high", "ours"]]
    return figure


@styled
def attention_and_mean(entropy: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """How even attention is by epoch, and what a plain mean in its place does to mAP.

    Args:
        entropy: a row per `epoch` and head, as `attention_entropy` gives them.
        costs: a row for each `feature` and what is `replaced`: the `difference` in mAP and `half`
            the width of its interval, in points.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    sns.lineplot(
        entropy,
        x="epoch",
        y="entropy",
        hue="unit",
        style="layer",
        palette={"seu": GREEN, "mfu": PURPLE},
        marker="",
        errorbar=("pi", 100),
        ax=left,
    )
    left.axhline(1, color=GREY, linestyle="--")
    left.set(ylabel="entropy / its maximum", title="the heads' mean and range; 1: a plain mean")
    for shift, (feature, rows) in enumerate(costs.groupby("feature", sort=False)):
        places = np.arange(len(rows)) + 0.2 * shift
        look = FEATURE_STYLES[feature] | {"linestyle": "", "label": FEATURE_LABELS[feature]}
        right.errorbar(rows["difference"], places, xerr=rows["half"], **look)
    right.set_yticks(places, rows["replaced"])
    right.invert_yaxis()
    right.axvline(0, color=GREY)
    right.set(xlabel="mAP less that as trained (points)", title="attention replaced by a mean")
    legend_below(figure, right, 3)
    figure.drawn = pd.concat([entropy, costs])
    return figure


@styled
def plane(points: pd.DataFrame, colour: str) -> Figure:
    """Images as points of a plane: queries are squares, gallery images dots.

    Args:
        points: columns `x`, `y`, `split` ("query" or "gallery") and `colour`.
        colour: the column whose values have colours of their own, up to nine.
    """
    figure, axes = plt.subplots(figsize=(7.0, 5.0))
    values = sorted(points[colour].unique())
    sns.scatterplot(
        points,
        x="x",
        y="y",
        hue=colour,
        hue_order=values,
        palette=sns.color_palette(n_colors=len(values)),
        style="split",
        markers={"query": "s", "gallery": "o"},
        s=10,
        alpha=0.7,
        linewidth=0,
    )
    axes.set_axis_off()
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.drawn = points
    return figure
