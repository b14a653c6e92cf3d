"""Differences in accuracy by source. Attention beside a mean. Images in a plane."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .style import (
    FEATURE_LABELS,
    FEATURE_STYLES,
    GREEN,
    GREY,
    PURPLE,
    SOURCE_STYLES,
    legend_below,
    styled,
)


@styled
def differences(data: pd.DataFrame, *, titles: Mapping[str, str], label: str) -> Figure:
    """Differences in accuracy by source, with intervals where they are known; a panel a metric.

    Args:
        data: a row per case, metric and source, as `Results.dots` and `claims.judge` return:
            `case`, `metric`, `source`, `difference`, and its interval from `low` to `high`, in
            points. Missing values are gaps.
        titles: what each source is.
        label: of the axes; it follows the name of the metric.
    """
    cases = data["case"].unique()
    places = pd.Series(np.arange(len(cases)), cases)
    metrics = data["metric"].unique()
    figure, panels = plt.subplots(
        1,
        len(metrics),
        figsize=(2 + 4 * len(metrics), 0.36 * len(cases) + 1.9),
        sharey=True,
        squeeze=False,
    )
    for axes, metric in zip(panels[0], metrics, strict=True):
        rows = data[data["metric"] == metric]
        for source, shift in zip(SOURCE_STYLES, (-0.27, -0.09, 0.09, 0.27), strict=True):
            _draw_source(axes, rows, source, titles[source], places + shift)
        axes.axvline(0, color=GREY, linewidth=1, zorder=1)
        axes.set(xlabel=f"{metric} {label} (points)")
    panels[0, 0].set_yticks(places, cases)
    panels[0, 0].set_ylim(len(cases) - 0.5, -0.5)
    legend_below(figure, panels[0, 0], 2)
    figure.drawn = data[["case", "metric", "source", "difference", "low", "high"]]
    return figure


def _draw_source(axes, rows: pd.DataFrame, source: str, title: str, places: pd.Series) -> None:
    """Draws the differences of one source at the places of their cases, if there are any."""
    rows = rows[(rows["source"] == source) & rows["difference"].notna()]
    if rows.empty:
        return
    half = (rows["high"] - rows["low"]) / 2
    if half.notna().any():
        title += ", 95 % interval"
    axes.errorbar(
        rows["difference"],
        places[rows["case"]],
        xerr=half,
        label=title,
        **SOURCE_STYLES[source] | {"linestyle": ""},
    )


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
    """Images as points of planes, one for each feature: queries are squares, gallery images dots.

    Args:
        points: columns `feature` (its name), `x`, `y`, `split` ("query" rows first, then "gallery")
            and `colour`.
        colour: the column whose values, text, have colours of their own, up to nine.
    """
    values = sorted(points[colour].unique())
    features = points["feature"].unique()
    size = 3.5 * len(features), 3.7
    apart = {"wspace": 0.12}
    figure, panels = plt.subplots(1, len(features), figsize=size, squeeze=False, gridspec_kw=apart)
    for feature, axes in zip(features, panels[0], strict=True):
        sns.scatterplot(
            points[points["feature"] == feature],
            x="x",
            y="y",
            hue=colour,
            hue_order=values,
            style="split",
            markers=["s", "o"],
            s=10,
            alpha=0.7,
            linewidth=0,
            ax=axes,
        )
        axes.set_title(feature)
        axes.set_axis_off()
        axes.get_legend().remove()
    legend_below(figure, axes, len(values) + 4)
    figure.drawn = points
    return figure
