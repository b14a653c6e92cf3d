"""Curves: CMC, the course of a training, accuracy by depth (Fig. 5) and by dimension (Fig. 6)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import FEATURES, PAPER
from .style import (
    BLACK,
    FEATURE_LABELS,
    FEATURE_STYLES,
    GREY,
    SOURCE_STYLES,
    legend_below,
    scale_differences,
    styled,
)


@styled
def cmc_curves(curves: Mapping[str, np.ndarray]) -> Figure:
    """Cumulative matching characteristics of several models, up to rank 20.

    Args:
        curves: name -> (ranks,) fractions of 1, as `Ranking.cmc`.
    """
    length = min(20, *map(len, curves.values()))
    drawn = pd.DataFrame({name: curve[:length] for name, curve in curves.items()})
    drawn.insert(0, "rank", range(1, length + 1))
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for name in curves:
        percent = 100 * drawn[name]
        axes.plot(drawn["rank"], percent, label=f"{name} (rank-1 {percent[0]:.1f} %)")
    axes.set(xlabel="rank", ylabel="queries matched (%)", xlim=(0.5, length + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")
    figure.drawn = drawn
    return figure


@styled
def training_curves(metrics: pd.DataFrame) -> Figure:
    """Losses of every supervised feature (Eqs. 10 and 11), and the learning rate, by epoch.

    Args:
        metrics: the lines of a run's metrics.jsonl, with columns `epoch`, `learning_rate`,
            `cross_entropy/<feature>` and `triplet/<feature>`. Lines without a loss are left out.
    """
    losses = list(metrics.filter(regex="^(cross_entropy|triplet)/"))
    steps = metrics.dropna(subset=losses, how="all")
    drawn = steps.groupby("epoch")[["learning_rate", *losses]].mean()
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8))
    entropy, triplet, rate = panels
    for column in losses:
        loss, feature = column.split("/")
        axes = entropy if loss == "cross_entropy" else triplet
        look = FEATURE_STYLES[feature]
        axes.plot(drawn[column], label=FEATURE_LABELS[feature], markevery=0.12, **look)
    rate.plot(drawn["learning_rate"], color=BLACK, marker="")
    # The soft margin of two equal distances: log(1 + e^0).
    triplet.axhline(np.log(2), color=GREY, linewidth=1.2, linestyle="--")
    titles = ("label-smoothed cross entropy", "triplet loss (dashed: log 2)", "learning rate")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
        _over_epochs(axes)
    legend_below(figure, entropy, 3)
    figure.drawn = drawn.reset_index()
    return figure


@styled
def map_by_epoch(metrics: pd.DataFrame, *, baselines: Mapping[str, float]) -> Figure:
    """mAP of every feature at each evaluation of a training, and level lines at the baselines.

    Args:
        metrics: the lines of a run's metrics.jsonl. Those with `epoch`, `feature` and `mAP`, a
            fraction of 1, are drawn.
        baselines: name -> mAP, a fraction of 1.
    """
    evaluations = metrics[["epoch", "feature", "mAP"]].dropna()
    figure, axes = plt.subplots(figsize=(7.6, 4.0))
    _draw_features(axes, evaluations.assign(mAP=100 * evaluations["mAP"]), "epoch", "mAP")
    for (name, value), dash in zip(baselines.items(), ("--", "-.", ":", (0, (1, 5))), strict=False):
        label = f"{name} ({100 * value:.1f} %)"
        axes.axhline(100 * value, color=GREY, linewidth=1.2, linestyle=dash, label=label)
    axes.set_ylabel("mAP (%)")
    _over_epochs(axes)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    levels = pd.DataFrame(baselines.items(), columns=["feature", "mAP"])
    figure.drawn = pd.concat([evaluations, levels], ignore_index=True)
    return figure


def _over_epochs(axes) -> None:
    """Whole epochs across, and values from 0 up."""
    axes.set(xlabel="epoch")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_features(axes, data: pd.DataFrame, x: str, y: str) -> None:
    """Draws a line for each feature."""
    for feature, rows in data.groupby("feature", sort=False):
        axes.plot(rows[x], rows[y], label=FEATURE_LABELS[feature], **FEATURE_STYLES[feature])


@styled
def probe_curves(table: pd.DataFrame) -> Figure:
    """Right choices by the strength of each cue, a panel a cue: local ones above, global below.

    Bands are intervals over the pairs of people; the dashed line is chance.

    Args:
        table: of `evaluation.probe.accuracies`. Of the features, the branches' own are drawn.
    """
    drawn = table[table["feature"].isin(FEATURES[:2]) & (table["cue"] != "all")]
    percent = drawn.assign(**100 * drawn[["accuracy", "low", "high"]])
    cues = drawn.groupby("kind", sort=False)["cue"].unique()
    across = max(map(len, cues))
    figure, panels = plt.subplots(
        len(cues), across, figsize=(9.6, 5.4), sharex=True, sharey=True, squeeze=False
    )
    for row, kind in zip(panels, cues.index, strict=True):
        for axes, cue in zip(row, cues[kind], strict=True):
            of_cue = percent[percent["cue"] == cue]
            axes.axhline(50, color=GREY, linewidth=1.2, linestyle="--")
            for feature, rows in of_cue.groupby("feature", sort=False):
                look = {"color": FEATURE_STYLES[feature]["color"], "alpha": 0.1, "linewidth": 0}
                axes.fill_between(rows["strength"], rows["low"], rows["high"], **look)
            _draw_features(axes, of_cue, "strength", "accuracy")
            axes.set(title=f"{cue} ({kind})", xticks=drawn["strength"].unique())
        row[0].set_ylabel("right choices (%)")
    for axes in panels[-1]:
        axes.set_xlabel("strength")
    legend_below(figure, panels[0, 0], 3)
    figure.drawn = drawn
    return figure


@styled
def feature_curves(points: pd.DataFrame, *, titles: Mapping[str, str]) -> Figure:
    """Fig. 5: mAP of each feature by depth, a panel a source.

    A source with a single point has no curve, and is left out.

    Args:
        points: of `Results.points`, a row per point, feature, metric and source.
        titles: what each of the sources is.
    """
    drawn = _with_curves(points, "depth")
    sources = drawn.groupby("source", sort=False)
    size = 2.6 * len(sources) + 2, 3.6
    figure, panels = plt.subplots(
        1, len(sources), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for axes, (source, rows) in zip(panels[0], sources, strict=True):
        _draw_features(axes, rows, "depth", "value")
        axes.set_title(titles[source].replace(", ", ",\n"), fontsize=8)
        axes.set(xlabel="stacked HTMs, $L$", xticks=drawn["depth"].unique())
    panels[0, 0].set_ylabel("mAP (%)")
    legend_below(figure, panels[0, 0], 4)
    figure.drawn = drawn
    return figure


@styled
def difference_curves(points: pd.DataFrame, x: str, *, titles: Mapping[str, str]) -> Figure:
    """Fig. 5 or 6: mAP of all six features, minus that of the reference point, by source.

    So the shapes of the curves can be compared, whatever their heights. Points without an
    interval, of few runs, are hollow. Sources stand a little apart, so that all can be seen. The
    scale is that of `scale_differences`. A source with a single point is left out.

    Args:
        points: of `Results.points`, a row per point, feature, metric and source. Where they are
            known, `parameters` (M) and `macs` (G) at the paper's scale are written below a point.
        x: "depth" for Fig. 5, "dim" for Fig. 6.
        titles: what each of the sources is.
    """
    drawn = _with_curves(points.query("feature == 'all'"), x)
    label, symbol = {"depth": ("stacked HTMs", "L"), "dim": ("fused dimension", "D")}[x]
    reference = getattr(PAPER.fusion, x)
    is_reference = drawn[x] == reference
    drawn = drawn.assign(difference=drawn["difference"].mask(is_reference, 0))
    figure, axes = plt.subplots(figsize=(9, 4.2))
    apart = 0.006 * np.ptp(drawn[x])  # so that intervals do not hide each other
    for place, (source, rows) in enumerate(drawn.groupby("source", sort=False)):
        places = rows[x] + apart * place
        half = (rows["high"] - rows["low"]) / 2
        look = SOURCE_STYLES[source]
        axes.errorbar(places, rows["difference"], yerr=half, label=titles[source], **look)
        single = half.isna() & ~is_reference[rows.index]
        hollow = {"linestyle": "", "markerfacecolor": "white", "zorder": 3}
        axes.plot(places[single], rows["difference"][single], **look | hollow)
    axes.axhline(0, color=GREY, linewidth=1)
    scale_differences(axes.yaxis, f"mAP of all six,\nminus that of ${symbol} = {reference}$")
    ticks = drawn.groupby(x).first()
    texts = [_tick(x, place, point) for place, point in ticks.iterrows()]
    axes.set_xticks(ticks.index, texts, fontsize=8)
    axes.set_xlabel(f"{label}, ${symbol}$")
    legend_below(figure, axes, 2)
    figure.drawn = drawn
    return figure


def _with_curves(points: pd.DataFrame, x: str) -> pd.DataFrame:
    """The mAPs of the sources that have more than one point."""
    known = points.dropna(subset="value").query("metric == 'mAP'")
    places = known.groupby("source")[x].nunique()
    return known[known["source"].map(places) > 1]


def _tick(x: str, place: float, point: pd.Series) -> str:
    """A point's place on the axis; D in a smaller profile and costs where they are known."""
    lines = [f"{place:g}"]
    if x == "dim" and point["here"] != place:
        lines.append(f"({point['here']:g} here)")
    if "macs" in point:
        lines += [f"{point['parameters']:.3g} M", f"{point['macs']:.2g} G"]
    return "\n".join(lines)
