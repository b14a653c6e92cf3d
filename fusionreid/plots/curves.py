"""Every figure of the notebooks. Curves and bars are here, grids of images in `pictures`, the diagram in `diagram`.

Each function takes plain arrays or DataFrames, computes nothing slow and returns a Figure, whose attribute `drawn`
holds the numbers drawn; `save` writes the PNG and those numbers as its twin CSV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..config import FEATURES
from .agreement import backbone_pairs, signs
from .diagram import architecture
from .grids import attention_heads, batch_sheet, contact_sheet, heat_maps, retrieved_lists
from .style import BLUE, FEATURE_LABELS, FEATURE_STYLES, GREEN, GREY, ORANGE, PALETTE, PURPLE, SKY, save, styled

__all__ = [
    "architecture", "attention_heads", "backbone_pairs", "batch_sheet", "cmc_curves", "component_bars",
    "contact_sheet", "cost_parity", "depth_curves", "dimension_curves", "heat_maps", "learning_rate", "likeness",
    "loss_curves", "map_by_epoch", "retrieved_lists", "save", "signs",
]  # fmt: skip

_LEVELS = ("--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def _columns(data: pd.DataFrame, needed: Sequence[str], function: str) -> None:
    missing = [name for name in needed if name not in data.columns]
    if missing:
        raise ValueError(f"{function}: expected columns {list(needed)}, missing {missing}, found {list(data.columns)}")


@styled
def cmc_curves(curves: Mapping[str, np.ndarray], *, max_rank: int = 20) -> Figure:
    """Cumulative Matching Characteristics of several models on one axis.

    Args:
        curves: name -> (ranks,) fractions of 1, rank-1 first, as `Ranking.cmc`.
        max_rank: the last rank drawn.
    """
    length = min([max_rank, *(len(curve) for curve in curves.values())])
    ranks = np.arange(1, length + 1)
    figure, axes = plt.subplots(figsize=(6.4, 4.2))
    for index, (name, curve) in enumerate(curves.items()):
        axes.plot(ranks, 100 * np.asarray(curve)[:length], label=f"{name} (rank-1 {100 * curve[0]:.1f} %)",
                  color=PALETTE[index % len(PALETTE)],
                  marker=_MARKERS[index % len(_MARKERS)], markevery=max(1, length // 10))  # fmt: skip
    axes.set(xlabel="rank", ylabel="queries matched (%)", xlim=(0.5, length + 0.5))
    axes.set_ylim(top=min(100.5, axes.get_ylim()[1] + 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right")
    figure.drawn = pd.DataFrame({"rank": ranks} | {name: np.asarray(c)[:length] for name, c in curves.items()})
    return figure


@styled
def loss_curves(metrics: pd.DataFrame) -> Figure:
    """Mean of each loss term by epoch: cross entropy (Eq. 10) and triplet (Eq. 11) of every supervised feature.

    Args:
        metrics: the lines of a run's metrics.jsonl, with columns `epoch` and `cross_entropy/<feature>`,
            `triplet/<feature>`; lines without a loss term (evaluations) are passed over.
    """
    terms = [name for name in metrics.columns if name.startswith(("cross_entropy/", "triplet/"))]
    _columns(metrics, ["epoch", *(terms or ["cross_entropy/<feature>"])], "loss_curves")
    data = metrics.dropna(subset=terms, how="all").groupby("epoch")[terms].mean().reset_index()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8))
    for axes, term, title in zip(
        panels, ("cross_entropy", "triplet"), ("label-smoothed cross entropy", "triplet"), strict=True
    ):
        for feature in FEATURES:
            if f"{term}/{feature}" in data:
                axes.plot(data["epoch"], data[f"{term}/{feature}"], label=FEATURE_LABELS[feature],
                          **FEATURE_STYLES[feature], markevery=max(1, len(data) // 8))  # fmt: skip
        axes.set(xlabel="epoch", ylabel="loss", title=title)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.drawn = data
    return figure


@styled
def learning_rate(metrics: pd.DataFrame) -> Figure:
    """The schedule as it was run: learning rate by epoch.

    Args:
        metrics: lines of metrics.jsonl with columns `epoch` and `learning_rate`.
    """
    _columns(metrics, ["epoch", "learning_rate"], "learning_rate")
    data = metrics.dropna(subset=["learning_rate"]).groupby("epoch", as_index=False)["learning_rate"].mean()
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    axes.plot(data["epoch"], data["learning_rate"], color=BLUE, marker="o", markevery=max(1, len(data) // 20))
    axes.set(xlabel="epoch", ylabel="learning rate")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    figure.drawn = data
    return figure


@styled
def map_by_epoch(metrics: pd.DataFrame, *, baselines: Mapping[str, float] | None = None) -> Figure:
    """mAP of every feature at each evaluation during training.

    Args:
        metrics: lines of metrics.jsonl; those with columns `epoch`, `feature` and `mAP` (a fraction of 1) are drawn.
        baselines: name -> mAP (a fraction of 1), drawn as level lines: an untrained network, a colour histogram.
    """
    _columns(metrics, ["epoch", "feature", "mAP"], "map_by_epoch")
    data = metrics.dropna(subset=["feature", "mAP"])[["epoch", "feature", "mAP"]]
    figure, axes = plt.subplots(figsize=(7.6, 4.0))
    for feature in [*FEATURES, "all"]:
        rows = data[data["feature"] == feature]
        if len(rows):
            axes.plot(rows["epoch"], 100 * rows["mAP"], label=FEATURE_LABELS[feature], **FEATURE_STYLES[feature])
    for index, (name, value) in enumerate((baselines or {}).items()):
        axes.axhline(100 * value, color=GREY, linewidth=1.2, linestyle=_LEVELS[index % len(_LEVELS)],
                     label=f"{name} ({100 * value:.1f} %)")  # fmt: skip
    axes.set(xlabel="epoch", ylabel="mAP (%)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center")
    level = [{"epoch": np.nan, "feature": name, "mAP": value} for name, value in (baselines or {}).items()]
    figure.drawn = pd.concat([data, pd.DataFrame(level)], ignore_index=True) if level else data
    return figure


def _mean_and_spread(axes, rows: pd.DataFrame, x: str, y: str, **style) -> None:
    """A line through the means over seeds; with several seeds, a band of one standard deviation."""
    groups = rows.groupby(x)[y]
    mean, deviation = groups.mean(), groups.std()
    axes.plot(mean.index, mean.to_numpy(), **style)
    if (groups.count() > 1).any():
        low, high = (mean - deviation).to_numpy(), (mean + deviation).to_numpy()
        axes.fill_between(mean.index, low, high, color=style["color"], alpha=0.15, linewidth=0)


@styled
def depth_curves(data: pd.DataFrame) -> Figure:
    """Fig. 5: accuracy by the number of stacked HTMs, in three groups of curves: backbone, refined, fused.

    Args:
        data: a row per depth, feature and seed: columns `depth`, `feature` (a name of FEATURES, or "all"), `mAP` and
            `rank-1` in percent. Several rows of one depth and feature are drawn as mean and standard deviation.
    """
    _columns(data, ["depth", "feature", "mAP", "rank-1"], "depth_curves")
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2))
    for axes, measure, title in zip(panels, ("mAP", "rank-1"), ("mAP", "Rank-1"), strict=True):
        for feature in [*FEATURES, "all"]:
            rows = data[data["feature"] == feature]
            if len(rows):
                _mean_and_spread(axes, rows, "depth", measure, label=FEATURE_LABELS[feature], **FEATURE_STYLES[feature])
        axes.set(xlabel="stacked HTMs, $L$", ylabel=f"{title} (%)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.drawn = data
    return figure


@styled
def dimension_curves(data: pd.DataFrame) -> Figure:
    """Fig. 6: accuracy by the fused dimension D on the left axes, parameters and multiply-adds on the right ones.

    Args:
        data: a row per dimension and seed: columns `dim`, `mAP` and `rank-1` in percent, `parameters` in millions,
            `macs` in thousand millions.
    """
    _columns(data, ["dim", "mAP", "rank-1", "parameters", "macs"], "dimension_curves")
    costs = data.groupby("dim")[["parameters", "macs"]].first()
    places = pd.Series(np.arange(len(costs)), index=costs.index)
    placed = data.assign(place=data["dim"].map(places))
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.2))
    for axes, cost, label, colour in zip(
        panels, ("parameters", "macs"), ("parameters (M)", "multiply-adds (G)"), (SKY, ORANGE), strict=True
    ):
        bars = axes.twinx()
        drawn = bars.bar(places, costs[cost], width=0.55, color=colour, alpha=0.45, label=label)
        bars.bar_label(drawn, fmt="%.3g", fontsize=8, color="#444444", padding=1)
        bars.set(ylabel=label)
        bars.set_ylim(0, 2.5 * costs[cost].max())
        bars.grid(False)
        bars.spines["right"].set_visible(True)
        for measure, name, line, mark, ink in (("rank-1", "Rank-1", "--", "s", GREEN), ("mAP", "mAP", "-", "o", BLUE)):
            _mean_and_spread(axes, placed, "place", measure, label=name, color=ink, linestyle=line, marker=mark)
        low, high = data[["mAP", "rank-1"]].min().min(), data[["mAP", "rank-1"]].max().max()
        room = max(high - low, 2.0)
        axes.set(xlabel="fused dimension, $D$", ylabel="accuracy (%)", ylim=(low - 1.0 * room, high + 0.15 * room))
        axes.set_xticks(places, [str(dim) for dim in costs.index])
        axes.grid(False)  # it would run through the numbers on the bars
        axes.set_zorder(bars.get_zorder() + 1)
        axes.patch.set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        figure_label = f"{label}, right axis"
        axes.legend([*handles, drawn], [*labels, figure_label], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3,
                    columnspacing=1.2, handlelength=2.2)  # fmt: skip
    figure.drawn = data
    return figure


@styled
def likeness(table: pd.DataFrame, *, width: float = 5.6) -> Figure:
    """A square table of correlations, for example between features, as an annotated picture.

    Args:
        table: as `DataFrame.corr` gives it; names of FEATURES are shown by their symbols.
    """
    import seaborn

    names = [FEATURE_LABELS.get(name, str(name)) for name in table.columns]
    figure, axes = plt.subplots(figsize=(width, width))
    low = min(0.0, float(np.nanmin(table.to_numpy())))
    seaborn.heatmap(table.to_numpy(), vmin=low, vmax=1, cmap="cividis", annot=True, fmt=".2f", square=True, cbar=False,
                    linewidths=1, xticklabels=names, yticklabels=names, annot_kws={"fontsize": 9}, ax=axes)  # fmt: skip
    axes.tick_params(axis="x", rotation=40, length=0)
    axes.tick_params(axis="y", rotation=0, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    figure.drawn = table.reset_index(names="name")
    return figure


@styled
def component_bars(ours: pd.DataFrame, paper: pd.DataFrame, *, ours_title: str, paper_title: str) -> Figure:
    """Table II as bars: how the components add up, the paper's numbers and ours each on an axis of its own.

    Args:
        ours, paper: the same rows in the same order: columns `name`, `mAP` and `rank-1` in percent (missing: a gap).
        ours_title, paper_title: which data and profile each panel shows.
    """
    for data in (ours, paper):
        _columns(data, ["name", "mAP", "rank-1"], "component_bars")
    if list(ours["name"]) != list(paper["name"]):
        raise ValueError(f"component_bars: expected the paper's rows {list(paper['name'])}, found {list(ours['name'])}")
    places = np.arange(len(ours))
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.52 * len(ours) + 1.7), sharey=True)
    for axes, data, title in zip(panels, (paper, ours), (paper_title, ours_title), strict=True):
        for shift, measure, name, colour in ((-0.2, "mAP", "mAP", BLUE), (0.2, "rank-1", "Rank-1", ORANGE)):
            bars = axes.barh(places + shift, data[measure].fillna(0), height=0.38, color=colour, label=name)
            text = ["no run" if np.isnan(value) else f"{value:.1f}" for value in data[measure].astype(float)]
            axes.bar_label(bars, text, padding=3, fontsize=8.5)
        axes.set(xlabel="accuracy (%)", title=title, xlim=(0, 1.15 * data.fillna(1)[["mAP", "rank-1"]].max(axis=None)))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(places, list(ours["name"]))
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.drawn = pd.concat([paper.assign(source=paper_title), ours.assign(source=ours_title)], ignore_index=True)
    return figure


@styled
def cost_parity(data: pd.DataFrame, *, tolerance: float = 0.15) -> Figure:
    """Parameters and multiply-adds of every table row: ours against the paper's, and the difference below.

    Args:
        data: a row per table row: columns `name`, `parameters`, `paper_parameters` (millions), `macs`, `paper_macs`
            (thousand millions); optional `misprint` (bool) marks rows where the paper contradicts itself.
        tolerance: the grey band of the lower panels, in the same units.
    """
    _columns(data, ["name", "parameters", "paper_parameters", "macs", "paper_macs"], "cost_parity")
    misprint = data.get("misprint", pd.Series(False, index=data.index)).fillna(False).astype(bool)
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex="col", height_ratios=(3, 2))
    for (above, below), cost, label in zip(
        panels.T, ("parameters", "macs"), ("parameters (M)", "multiply-adds (G)"), strict=True
    ):
        theirs, mine = data[f"paper_{cost}"], data[cost]
        ends = [min(theirs.min(), mine.min()), max(theirs.max(), mine.max())]
        above.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
        below.axhspan(-tolerance, tolerance, color="#E8E8E8", zorder=0)
        below.axhline(0, color=GREY, linewidth=1, zorder=1)
        for rows, colour, mark, name in ((~misprint, BLUE, "o", "table rows"), (misprint, PURPLE, "X", "misprint")):
            if rows.any():
                above.scatter(theirs[rows], mine[rows], color=colour, marker=mark, s=28, label=name, zorder=2)
                below.scatter(theirs[rows], (mine - theirs)[rows], color=colour, marker=mark, s=28, zorder=2)
        worst = (mine - theirs)[~misprint].abs().max()
        above.set(ylabel=f"ours, {label}", title=f"largest difference {worst:.2f}")
        below.set(xlabel=f"paper, {label}", ylabel="ours - paper")
        reach = max(2 * tolerance, 1.15 * (mine - theirs).abs().max())
        below.set_ylim(-reach, reach)
    panels[0, 0].legend(loc="upper left")
    panels[1, 0].annotate(f"±{tolerance:g}", (0.01, tolerance), xycoords=("axes fraction", "data"), fontsize=8,
                          color="#444444", va="bottom")  # fmt: skip
    figure.drawn = data
    return figure
