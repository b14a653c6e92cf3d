"""Curves: CMC, losses, learning rate and mAP by epoch, and accuracy by depth (Fig. 5) and dimension (Fig. 6)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import FEATURES, LABELS
from . import style
from .style import expect_columns, legend_below, styled, with_numbers


def _whole_numbers(axes, **labels) -> None:
    axes.set(**labels)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def cmc_curves(curves: Mapping[str, np.ndarray]) -> Figure:
    """Cumulative Matching Characteristics of several models: name -> (ranks,) fractions of 1, as `Ranking.cmc`."""
    length = min(20, *map(len, curves.values()))
    drawn = pd.DataFrame(
        {"rank": np.arange(1, length + 1)}
        | {name: curve[:length] for name, curve in curves.items()}
    )
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for name, colour, marker in zip(curves, style.PALETTE, style.MARKERS, strict=False):
        axes.plot(drawn["rank"], 100 * drawn[name], color=colour, marker=marker,
                  label=f"{name} (rank-1 {100 * drawn[name][0]:.1f} %)")  # fmt: skip
    _whole_numbers(axes, xlabel="rank", ylabel="queries matched (%)", xlim=(0.5, length + 0.5))
    axes.set_ylim(top=min(100.5, axes.get_ylim()[1] + 1))
    axes.legend(loc="lower right")
    return with_numbers(figure, drawn)


@styled
def training_curves(metrics: pd.DataFrame) -> Figure:
    """Cross entropy (Eq. 10) and triplet loss (Eq. 11) of every supervised feature, and the learning rate, by epoch.

    `metrics` are the lines of a run's metrics.jsonl, with columns `epoch`, `learning_rate`, `cross_entropy/<feature>`
    and `triplet/<feature>`; lines without a loss term (evaluations) are passed over.
    """
    terms = [name for name in metrics.columns if name.startswith(("cross_entropy/", "triplet/"))]
    expect_columns(
        metrics,
        ["epoch", "learning_rate", *(terms or ["cross_entropy/<feature>"])],
        "training_curves",
    )
    drawn = (
        metrics.dropna(subset=terms, how="all").groupby("epoch")[["learning_rate", *terms]].mean()
    )
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.8))
    for axes, term in zip(panels, ("cross_entropy", "triplet"), strict=False):
        for feature in FEATURES:
            if f"{term}/{feature}" in drawn:
                axes.plot(drawn[f"{term}/{feature}"], label=style.FEATURE_LABELS[feature],
                          **style.FEATURE_STYLES[feature], markevery=max(1, len(drawn) // 8))  # fmt: skip
    panels[1].axhline(np.log(2), color=style.GREY, linewidth=1.2, linestyle="--")
    panels[1].annotate("log 2: the hardest positive as far\nas the hardest negative", (0.98, np.log(2)), fontsize=8,
                       xycoords=("axes fraction", "data"), ha="right", va="bottom", color=style.GREY)  # fmt: skip
    panels[2].plot(drawn["learning_rate"], color=style.BLACK)
    for axes, title in zip(
        panels, ("label-smoothed cross entropy", "triplet loss", "learning rate"), strict=True
    ):
        _whole_numbers(axes, xlabel="epoch", title=title)
        axes.set_ylim(bottom=0)
    legend_below(figure, panels[0], 3)
    return with_numbers(figure, drawn.reset_index())


@styled
def map_by_epoch(metrics: pd.DataFrame, *, baselines: Mapping[str, float]) -> Figure:
    """mAP of every feature at each evaluation during training, and level lines at the mAP of `baselines`.

    Of the lines of metrics.jsonl those with `epoch`, `feature` and `mAP` are drawn. All mAP are fractions of 1.
    """
    expect_columns(metrics, ["epoch", "feature", "mAP"], "map_by_epoch")
    drawn = metrics.dropna(subset=["feature", "mAP"])[["epoch", "feature", "mAP"]]
    figure, axes = plt.subplots(figsize=(7.6, 4.0))
    _feature_lines(axes, drawn.assign(mAP=100 * drawn["mAP"]), "epoch", "mAP")
    for (name, value), dash in zip(baselines.items(), ("--", "-.", ":"), strict=False):
        label = f"{name} ({100 * value:.1f} %)"
        axes.axhline(100 * value, color=style.GREY, linewidth=1.2, linestyle=dash, label=label)
        drawn = pd.concat(
            [drawn, pd.DataFrame([{"feature": name, "mAP": value}])], ignore_index=True
        )
    _whole_numbers(axes, xlabel="epoch", ylabel="mAP (%)")
    axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    return with_numbers(figure, drawn)


def _feature_lines(axes, data: pd.DataFrame, x: str, y: str) -> None:
    """Of each feature a line through the means over seeds; with several seeds, a band of one standard deviation."""
    for feature in (name for name in LABELS if name in set(data["feature"])):
        seeds = data[data["feature"] == feature].groupby(x)[y]
        mean, deviation = seeds.mean(), seeds.std()
        axes.plot(mean, label=style.FEATURE_LABELS[feature], **style.FEATURE_STYLES[feature])
        if deviation.notna().any():
            colour = style.FEATURE_STYLES[feature]["color"]
            axes.fill_between(
                mean.index,
                mean - deviation,
                mean + deviation,
                color=colour,
                alpha=0.15,
                linewidth=0,
            )


@styled
def accuracy_curves(
    x: str, sides: Mapping[str, pd.DataFrame], *, titles: Mapping[str, str]
) -> Figure:
    """Accuracy by the number of stacked HTMs (Fig. 5, `x` "depth") or by the fused dimension D (Fig. 6, "dim").

    Panels of mAP and rank-1: the paper's above, recorded runs with bands below, the own run as thin marks.

    Args:
        sides: "paper", "recorded" and "ours", as `compare.curves` gives them: a row per point, feature and seed, with
            columns `x`, `feature` (a name of FEATURES, or "all"), `mAP` and `rank-1` in percent. Several seeds are
            drawn as their mean and a band of one standard deviation. D is the paper's; where known, `here` (D in the
            profile), `parameters` (M) and `macs` (G) stand below it.
        titles: what each of the sides is.
    """
    label = {"depth": "stacked HTMs, $L$", "dim": "fused dimension, $D$"}[x]
    for side, data in sides.items():
        expect_columns(data, [x, "feature", *style.MEASURES], f"{side}, by {x}")
    figure, panels = plt.subplots(2, 2, figsize=(9, 7.6))
    for row, (side, thin) in zip(panels, (("paper", None), ("recorded", "ours")), strict=True):
        data = sides[side] if thin is None or len(sides[side]) else sides[thin]
        points = {place: first for place, first in data.groupby(x).first().iterrows()}
        for axes, (measure, (name, _)) in zip(row, style.MEASURES.items(), strict=True):
            _feature_lines(axes, sides[side], x, measure)
            for feature, part in sides[thin].groupby("feature") if thin else ():
                colour = style.FEATURE_STYLES[feature]["color"]
                axes.plot(
                    part[x],
                    part[measure],
                    "_",
                    color=colour,
                    markersize=9,
                    markeredgewidth=0.8,
                    alpha=0.8,
                )
            title = titles[side] + (f"\nthin marks: {titles[thin]}" if thin else "")
            axes.set(xlabel=label, ylabel=f"{name} (%)", title=title)
            axes.set_xticks(
                list(points),
                [_tick(x, place, first) for place, first in points.items()],
                fontsize=8,
            )
    legend_below(figure, panels[0, 0], 4)
    return with_numbers(
        figure, pd.concat([data.assign(source=titles[side]) for side, data in sides.items()])
    )


def _tick(x: str, place: float, point: pd.Series) -> str:
    """A point's place on the axis, with its width in a smaller profile and its costs where they are known."""
    here = f"\n({point['here']:g} here)" if x == "dim" and point.get("here", place) != place else ""
    return (
        f"{place:g}"
        + here
        + ("\n{parameters:.3g} M\n{macs:.2g} G".format(**point) if "macs" in point else "")
    )


@styled
def likeness(table: pd.DataFrame) -> Figure:
    """Correlations between features, as `DataFrame.corr` gives them; names of FEATURES are shown with their symbols."""
    import seaborn

    figure, axes = plt.subplots(figsize=(5.6, 5.6))
    shown = table.rename(index=style.FEATURE_LABELS, columns=style.FEATURE_LABELS)
    seaborn.heatmap(shown, vmin=min(0.0, table.min(axis=None)), vmax=1, cmap="cividis", annot=True, fmt=".2f",
                    square=True, cbar=False, linewidths=1, annot_kws={"fontsize": 9}, ax=axes)  # fmt: skip
    axes.tick_params(axis="both", length=0)
    plt.setp(axes.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    return with_numbers(figure, table.reset_index(names="name"))
