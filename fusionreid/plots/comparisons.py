"""The paper beside ours: components (Table II), pairs of backbones (Table VI), costs, and all differences at once."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..paper.numbers import TITLES
from . import style
from .style import expect_columns, legend_below, styled, with_numbers


@styled
def component_bars(ours: pd.DataFrame, paper: pd.DataFrame, *, ours_title: str, paper_title: str) -> Figure:
    """A table as bars, the paper's numbers and ours each on an axis of its own.

    Args:
        ours, paper: the same rows in the same order: columns `name`, `mAP` and `rank-1` in percent (missing: a gap).
    """
    for data in (ours, paper):
        expect_columns(data, ["name", *style.MEASURES], "component_bars")
    if list(ours["name"]) != list(paper["name"]):
        raise ValueError(f"component_bars: expected the paper's rows {list(paper['name'])}, found {list(ours['name'])}")
    places = np.arange(len(ours))
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.52 * len(ours) + 1.7), sharey=True)
    for axes, data, title in zip(panels, (paper, ours), (paper_title, ours_title), strict=True):
        for (measure, (name, colour)), shift in zip(style.MEASURES.items(), (-0.2, 0.2), strict=True):
            values = data[measure].astype(float)
            bars = axes.barh(places + shift, values.fillna(0), height=0.38, color=colour, label=name)
            axes.bar_label(bars, ["no run" if np.isnan(v) else f"{v:.1f}" for v in values], padding=3, fontsize=8.5)
        axes.set(xlabel="accuracy (%)", title=title, xlim=(0, 1.15 * data[[*style.MEASURES]].fillna(1).max(axis=None)))
        axes.grid(axis="y", visible=False)
    panels[0].set_yticks(places, list(ours["name"]))
    panels[0].invert_yaxis()
    legend_below(figure, panels[0], 2)
    return with_numbers(figure, pd.concat([paper.assign(source=paper_title), ours.assign(source=ours_title)]))


@styled
def backbone_pairs(data: pd.DataFrame, *, ours_title: str, paper_title: str) -> Figure:
    """Each pair of backbones on a line: the branches alone, their fused features, and all six together.

    Args:
        data: columns `pair`, `feature` ("cnn" and "transformer" are the backbones alone; "cnn_fused",
            "transformer_fused", "all"), `paper` and `ours` in percent (missing: a gap).
    """
    expect_columns(data, ["pair", "feature", "paper", "ours"], "backbone_pairs")
    pairs = list(data["pair"].unique())
    places = {pair: place for place, pair in enumerate(pairs)}
    labels = style.FEATURE_LABELS | {"cnn": "CNN alone, $f$", "transformer": "Transformer alone, $f$"}
    shifts = {"cnn": -0.2, "transformer": 0.2, "cnn_fused": -0.2, "transformer_fused": 0.2, "all": 0.0}
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.5 * len(pairs) + 1.9), sharey=True)
    for axes, side, title in zip(panels, ("paper", "ours"), (paper_title, ours_title), strict=True):
        for feature, shift in shifts.items():
            rows, look = data[data["feature"] == feature], style.FEATURE_STYLES[feature]
            fill = "none" if feature in style.BRANCH_COLOURS else look["color"]
            axes.scatter(rows[side], rows["pair"].map(places) + shift, s=34, marker=look["marker"], facecolors=fill,
                         edgecolors=look["color"], linewidths=1.4, zorder=3, label=labels[feature])  # fmt: skip
        for branch, colour in style.BRANCH_COLOURS.items():
            both = data[data["feature"].isin([branch, f"{branch}_fused"])].groupby("pair")[side]
            heights = both.min().index.map(places) + shifts[branch]
            axes.hlines(heights, both.min(), both.max(), color=colour, alpha=0.5)
        axes.set(xlabel="mAP (%)", title=title)
        axes.margins(x=0.08)
    panels[0].set_yticks(range(len(pairs)), pairs)
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)
    legend_below(figure, panels[0], 5)
    return with_numbers(figure, data)


@styled
def signs(data: pd.DataFrame) -> Figure:
    """Every difference that the paper prints: its size there, and ours, above zero where the sign is the paper's.

    Args:
        data: a row per case and metric, as `claims.check` returns: columns `experiment`, `case`, `metric`, `paper` and
            `ours` in points. Rows that the paper does not print, or that are not run, are left out.
    """
    needed = ["experiment", "case", "metric", "paper", "ours"]
    expect_columns(data, needed, "signs")
    drawn = data.dropna(subset=["paper", "ours"])[needed]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for axes, (metric, (title, _)) in zip(panels, style.MEASURES.items(), strict=True):
        rows = drawn[drawn["metric"] == metric]
        ours = rows["ours"] * np.sign(rows["paper"])
        for name, colour, marker in zip(drawn["experiment"].unique(), style.PALETTE, style.MARKERS, strict=False):
            of = rows["experiment"] == name
            axes.scatter(rows["paper"][of].abs(), ours[of], s=34, marker=marker, alpha=0.8, color=colour, linewidths=0,
                         label=TITLES[name].split(":")[0])  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1)
        axes.axhline(0, color=style.GREY, linewidth=1)
        axes.set(xlabel="size of the difference in the paper (points)", xlim=(0.08, 20),
                 title=f"{title}: {(ours > 0).sum()} of {len(rows)} with the paper's sign")  # fmt: skip
        axes.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    panels[0].set_ylabel("ours, in the paper's direction (points)")
    legend_below(figure, panels[0], 8)
    return with_numbers(figure, drawn)


@styled
def cost_parity(data: pd.DataFrame, *, tolerance: float = 0.15) -> Figure:
    """Parameters and multiply-adds of every table row: ours against the paper's, and the difference below.

    Args:
        data: a row per table row: columns `name`, `parameters`, `paper_parameters` (millions), `macs`, `paper_macs`
            (thousand millions); `misprint` (bool) marks rows where the paper contradicts itself.
        tolerance: the grey band of the lower panels, in the same units.
    """
    expect_columns(data, ["name", "parameters", "paper_parameters", "macs", "paper_macs", "misprint"], "cost_parity")
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), sharex="col", height_ratios=(3, 2))
    labels = {"parameters": "parameters (M)", "macs": "multiply-adds (G)"}
    for (above, below), (cost, label) in zip(panels.T, labels.items(), strict=True):
        rows = pd.DataFrame({"paper": data[f"paper_{cost}"], "ours": data[cost], "misprint": data["misprint"]})
        rows["difference"] = rows["ours"] - rows["paper"]
        above.axline((rows["paper"].mean(),) * 2, slope=1, color=style.GREY, linewidth=1, zorder=1)
        below.axhspan(-tolerance, tolerance, color="#E8E8E8", zorder=0)
        below.axhline(0, color=style.GREY, linewidth=1, zorder=1)
        for misprint, part in rows.groupby("misprint"):
            look = dict(color=style.PURPLE, marker="X") if misprint else dict(color=style.GREEN, marker="o")
            above.scatter("paper", "ours", data=part, s=28, label="misprint" if misprint else "table rows", **look)
            below.scatter("paper", "difference", data=part, s=28, **look)
        worst, reach = rows[~rows["misprint"]]["difference"].abs().max(), rows["difference"].abs().max()
        above.set(ylabel=f"ours, {label}", title=f"largest difference {worst:.2f}")
        below.set(xlabel=f"paper, {label}", ylabel="ours - paper")
        below.set_ylim(-max(2 * tolerance, 1.15 * reach), max(2 * tolerance, 1.15 * reach))
    panels[0, 0].legend(loc="upper left")
    panels[1, 0].annotate(f"±{tolerance:g}", (0.01, tolerance), xycoords=("axes fraction", "data"), fontsize=8,
                          color="#444444", va="bottom")  # fmt: skip
    return with_numbers(figure, data)
