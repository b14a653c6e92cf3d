"""Curves: CMC, the course of a training, accuracy by depth (Fig. 5) and by dimension (Fig. 6)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import FEATURES, LABELS
from .style import BLACK, FEATURE_LABELS, FEATURE_STYLES, GREY, MEASURES, legend_below, styled


@styled
def cmc_curves(curves: Mapping[str, np.ndarray]) -> Figure:
    """Cumulative matching characteristics of several models, up to rank 20.

    Args:
        curves: name -> (ranks,) fractions of 1, as `Ranking.cmc`.
    """
    length = min(20, *map(len, curves.values()))
    drawn = pd.DataFrame({name: curve[:length] for name, curve in curves.items()})
    drawn.insert(0, "rank", np.arange(1, length + 1))
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
        axes.set(xlabel="epoch", title=title)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
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
    evaluations = metrics.dropna(subset=["feature", "mAP"])[["epoch", "feature", "mAP"]]
    figure, axes = plt.subplots(figsize=(7.6, 4.0))
    _draw_features(axes, evaluations.assign(mAP=100 * evaluations["mAP"]), "epoch", "mAP")
    for (name, value), dash in zip(baselines.items(), ("--", "-.", ":"), strict=False):
        label = f"{name} ({100 * value:.1f} %)"
        axes.axhline(100 * value, color=GREY, linewidth=1.2, linestyle=dash, label=label)
    axes.set(xlabel="epoch", ylabel="mAP (%)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    levels = pd.DataFrame(baselines.items(), columns=["feature", "mAP"])
    figure.drawn = pd.concat([evaluations, levels], ignore_index=True)
    return figure


def _draw_features(axes, data: pd.DataFrame, x: str, y: str) -> None:
    """Draws a line of each feature through the means over seeds.

    With several seeds it lies in a band of one standard deviation to both sides.
    """
    for feature in LABELS:
        rows = data[data["feature"] == feature]
        if rows.empty:
            continue
        seeds = rows.groupby(x)[y]
        mean = seeds.mean()
        deviation = seeds.std()
        _draw_feature(axes, feature, mean, mean - deviation, mean + deviation)


def _draw_feature(axes, feature: str, mean: pd.Series, low: pd.Series, high: pd.Series) -> None:
    """Draws the line of a feature, and a band from `low` to `high` where these are known."""
    look = FEATURE_STYLES[feature]
    axes.plot(mean, label=FEATURE_LABELS[feature], **look)
    if low.notna().any():
        axes.fill_between(mean.index, low, high, color=look["color"], alpha=0.1, linewidth=0)


@styled
def probe_curves(table: pd.DataFrame) -> Figure:
    """Right choices by the strength of each cue, a panel a cue: local ones above, global below.

    Bands are intervals over the pairs of people; the dashed line is chance.

    Args:
        table: of `evaluation.probe.accuracies`; of the features, those of the branches are drawn.
    """
    drawn = table[table["feature"].isin(FEATURES) & (table["cue"] != "all")]
    cues = drawn.groupby("kind", sort=False)["cue"].unique()
    across = max(map(len, cues))
    figure, panels = plt.subplots(
        len(cues), across, figsize=(9.6, 5.4), sharex=True, sharey=True, squeeze=False
    )
    for row, kind in zip(panels, cues.index, strict=True):
        for axes, cue in zip(row, cues[kind], strict=True):
            axes.axhline(50, color=GREY, linewidth=1.2, linestyle="--")
            for feature, rows in drawn[drawn["cue"] == cue].groupby("feature", sort=False):
                percent = 100 * rows.set_index("strength")[["accuracy", "low", "high"]]
                ends = percent["low"], percent["high"]
                _draw_feature(axes, feature, percent["accuracy"], *ends)
            axes.set(title=f"{cue} ({kind})", xticks=drawn["strength"].unique())
        row[0].set_ylabel("right choices (%)")
    for axes in panels[-1]:
        axes.set_xlabel("strength")
    legend_below(figure, panels[0, 0], 3)
    figure.drawn = drawn
    return figure


@styled
def accuracy_curves(
    x: str, sides: Mapping[str, pd.DataFrame], *, titles: Mapping[str, str]
) -> Figure:
    """Accuracy by the number of stacked HTMs (Fig. 5) or by the fused dimension D (Fig. 6).

    The paper's mAP and rank-1 are above. Below are recorded runs, and the reader's own run as thin
    marks.

    Args:
        x: "depth" for Fig. 5, "dim" for Fig. 6.
        sides: "paper", "recorded" and "ours", as `Results.curves` gives them: a row per point,
            feature and seed, with columns `x`, `feature`, `mAP` and `rank-1` in percent. D is the
            paper's. Where they are known, `here` (D in the profile), `parameters` (M) and `macs`
            (G) are written below it.
        titles: what each of the sides is.
    """
    recorded = sides["recorded"]
    ours = sides["ours"]
    figure, (above, below) = plt.subplots(2, 2, figsize=(9, 7.6))
    _draw_side(above, x, sides["paper"], titles["paper"], ticks=sides["paper"])
    title = f"{titles['recorded']}\nthin marks: {titles['ours']}"
    _draw_side(below, x, recorded, title, ticks=ours if recorded.empty else recorded)
    for axes, measure in zip(below, MEASURES, strict=True):
        for feature, points in ours.groupby("feature"):
            colour = FEATURE_STYLES[feature]["color"]
            axes.plot(points[x], points[measure], "_", color=colour, markersize=9, alpha=0.8)
    legend_below(figure, above[0], 4)
    figure.drawn = pd.concat(data.assign(source=titles[side]) for side, data in sides.items())
    return figure


def _draw_side(panels, x: str, data: pd.DataFrame, title: str, ticks: pd.DataFrame) -> None:
    """Draws mAP and rank-1 of one side; the ticks are at the points of `ticks`."""
    label = {"depth": "stacked HTMs, $L$", "dim": "fused dimension, $D$"}[x]
    points = ticks.groupby(x).first()
    texts = [_tick(x, place, point) for place, point in points.iterrows()]
    for axes, (measure, (name, _)) in zip(panels, MEASURES.items(), strict=True):
        _draw_features(axes, data, x, measure)
        axes.set(xlabel=label, ylabel=f"{name} (%)", title=title)
        axes.set_xticks(points.index, texts, fontsize=8)


def _tick(x: str, place: float, point: pd.Series) -> str:
    """A point's place on the axis; D in a smaller profile and costs where they are known."""
    lines = [f"{place:g}"]
    if x == "dim" and point.get("here", place) != place:
        lines.append(f"({point['here']:g} here)")
    if "macs" in point:
        lines += [f"{point['parameters']:.3g} M", f"{point['macs']:.2g} G"]
    return "\n".join(lines)
