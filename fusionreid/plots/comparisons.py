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
    scale_differences,
    styled,
)


@styled
def differences(data: pd.DataFrame, *, titles: Mapping[str, str], label: str) -> Figure:
    """Differences in accuracy by source, with intervals where they are known; a panel a metric.

    A recorded difference without an interval, of too few runs, is hollow. Cases of which nothing
    was measured are left out, unless this is so of all. The scale is that of `scale_differences`.

    Args:
        data: a row per case, metric and source, as `Results.dots` and `claims.judge` return:
            `case`, `metric`, `source`, `difference`, and its interval from `low` to `high`, in
            points. Missing values are gaps.
        titles: what each source is.
        label: of the axes; it follows the name of the metric.
    """
    is_measured = (data["source"] != "paper") & data["difference"].notna()
    cases = data.loc[is_measured, "case"].unique()
    if len(cases):
        data = data[data["case"].isin(cases)]
    cases = data["case"].unique()
    places = pd.Series(np.arange(len(cases)), cases)
    metrics = data["metric"].unique()
    figure, panels = plt.subplots(
        1,
        len(metrics),
        figsize=(2.5 + 4 * len(metrics), 0.36 * len(cases) + 1.9),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes, metric in zip(panels[0], metrics, strict=True):
        rows = data[data["metric"] == metric]
        for source, shift in zip(SOURCE_STYLES, (-0.27, -0.09, 0.09, 0.27), strict=True):
            _draw_source(axes, rows, source, titles[source], places + shift)
        axes.axvline(0, color=GREY, linewidth=1, zorder=1)
    for axes, metric in zip(panels[0], metrics, strict=True):  # when all is drawn: one scale
        scale_differences(axes.xaxis, f"{metric} {label}")
    panels[0, 0].set_yticks(places, cases)
    panels[0, 0].set_ylim(len(cases) - 0.5, -0.5)
    legend_below(figure, panels[0, 0], 2)
    figure.drawn = data[["case", "metric", "source", "difference", "low", "high"]]
    return figure


def _draw_source(axes, rows: pd.DataFrame, source: str, title: str, places: pd.Series) -> None:
    """Draws the differences of one source at the places of their cases, if there are any."""
    rows = rows[(rows["source"] == source) & rows["difference"].notna()]
    look = SOURCE_STYLES[source] | {"linestyle": "", "label": title}
    for is_single, part in rows.groupby(rows["low"].isna()):  # those with an interval come first
        half = None
        if is_single:
            look |= {"markerfacecolor": "white"}
        else:
            half = (part["high"] - part["low"]) / 2
            look["label"] += ", 95 % interval"
        axes.errorbar(part["difference"], places[part["case"]], xerr=half, **look)
        look["label"] = None


@styled
def attention_and_mean(entropy: pd.DataFrame, costs: pd.DataFrame) -> Figure:
    """How even attention is by epoch, and what a plain mean in its place does to mAP.

    Args:
        entropy: a row per `epoch` and head, as `attention_entropy` gives them.
        costs: a row for each `feature` and what is `replaced`: the `difference` in mAP and `half`
            the width of its interval, in points.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    for estimator, width in (("mean", 2), ("min", 0.8)):
        sns.lineplot(
            entropy,
            x="epoch",
            y="entropy",
            hue="unit",
            style="layer",
            palette={"seu": GREEN, "mfu": PURPLE},
            marker="",
            estimator=estimator,
            errorbar=None,
            linewidth=width,
            legend=estimator == "mean",
            ax=left,
        )
    left.axhline(1, color=GREY, linestyle=":")
    left.set(
        ylabel="entropy / its maximum",
        title="mean of heads (thick), least even head (thin); plain mean (dotted)",
    )
    for shift, (feature, rows) in enumerate(costs.groupby("feature", sort=False)):
        places = np.arange(len(rows)) + 0.2 * shift
        look = FEATURE_STYLES[feature] | {"linestyle": "", "label": FEATURE_LABELS[feature]}
        right.errorbar(rows["difference"], places, xerr=rows["half"], **look)
    right.set_yticks(places, rows["replaced"])
    right.invert_yaxis()
    right.axvline(0, color=GREY)
    right.set(
        xlabel="mAP minus that as trained (points), each person once",
        title="attention replaced by a mean",
    )
    legend_below(figure, right, 3)
    figure.drawn = pd.concat([entropy, costs])
    return figure


@styled
def plane(points: pd.DataFrame, colour: str) -> Figure:
    """Images as points of planes, one for each feature: queries are squares, gallery images dots.

    Args:
        points: columns `feature` (its name), `x`, `y`, `split` ("query" or "gallery") and `colour`.
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
            markers={"query": "s", "gallery": "o"},
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
