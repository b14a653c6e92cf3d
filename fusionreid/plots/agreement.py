"""The paper's differences and ours in one picture: pairs of backbones (Table VI), and all statements at once."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..paper.numbers import TITLES
from .style import FEATURE_LABELS, FEATURE_STYLES, GREY, PALETTE, styled

_SHIFTS = {"cnn": -0.2, "transformer": 0.2, "cnn_fused": -0.2, "transformer_fused": 0.2, "all": 0.0}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LABELS = {"cnn": "CNN alone, $f$", "transformer": "Transformer alone, $f$"}


@styled
def backbone_pairs(data: pd.DataFrame, *, ours_title: str, paper_title: str, measure: str = "mAP") -> Figure:
    """Each pair of backbones on a line: the branches alone, their fused features, and all six together.

    Args:
        data: columns `pair`, `feature` ("cnn" and "transformer" are the backbones alone; "cnn_fused",
            "transformer_fused", "all"), `paper` and `ours` in percent (missing: a gap).
        ours_title, paper_title: which data and profile each panel shows.
        measure: the name of the numbers on the axis.
    """
    needed = ["pair", "feature", "paper", "ours"]
    if missing := [name for name in needed if name not in data.columns]:
        raise ValueError(f"backbone_pairs: expected columns {needed}, missing {missing}, found {list(data.columns)}")
    pairs = list(dict.fromkeys(data["pair"]))
    places = {pair: place for place, pair in enumerate(pairs)}
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.5 * len(pairs) + 1.9), sharey=True)
    for axes, side, title in zip(panels, ("paper", "ours"), (paper_title, ours_title), strict=True):
        for feature, shift in _SHIFTS.items():
            rows = data[data["feature"] == feature]
            style = FEATURE_STYLES[feature]
            fill = "none" if feature in _LABELS else style["color"]
            axes.scatter(rows[side], rows["pair"].map(places) + shift, s=34, marker=style["marker"], facecolors=fill,
                         edgecolors=style["color"], linewidths=1.4, zorder=3,
                         label=_LABELS.get(feature, FEATURE_LABELS[feature]))  # fmt: skip
        for branch in ("cnn", "transformer"):
            rows = data[data["feature"].isin([branch, f"{branch}_fused"])]
            both = rows.pivot(index="pair", columns="feature", values=side)
            heights = both.index.map(places) + _SHIFTS[branch]
            axes.hlines(heights, both.min(axis=1), both.max(axis=1), color=FEATURE_STYLES[branch]["color"], alpha=0.5)
        axes.set(xlabel=f"{measure} (%)", title=title)
        for place in np.arange(len(pairs) - 1) + 0.5:
            axes.axhline(place, color="#DDDDDD", linewidth=0.6)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)
    panels[0].set_yticks(range(len(pairs)), pairs)
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, columnspacing=1.2,
                  handletextpad=0.3)  # fmt: skip
    figure.drawn = data
    return figure


@styled
def signs(data: pd.DataFrame) -> Figure:
    """Every difference that the paper prints: its size there, and ours, above zero where the sign is the paper's.

    Args:
        data: a row per case and metric, as `claims.check` returns: columns `experiment`, `case`, `metric`, `paper` and
            `ours` in points. Rows that the paper only plots, or that are not run, are left out.
    """
    needed = ["experiment", "case", "metric", "paper", "ours"]
    if missing := [name for name in needed if name not in data.columns]:
        raise ValueError(f"signs: expected columns {needed}, missing {missing}, found {list(data.columns)}")
    drawn = data.dropna(subset=["paper", "ours"])[needed]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.4), sharey=True)
    for axes, metric, title in zip(panels, ("mAP", "rank-1"), ("mAP", "Rank-1"), strict=True):
        rows = drawn[drawn["metric"] == metric]
        oriented = rows["ours"] * np.sign(rows["paper"])
        for index, name in enumerate(dict.fromkeys(drawn["experiment"])):
            of = rows["experiment"] == name
            axes.scatter(rows["paper"][of].abs(), oriented[of], s=34, marker=_MARKERS[index % len(_MARKERS)], alpha=0.8,
                         color=PALETTE[index % len(PALETTE)], label=name, linewidths=0)  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1)
        axes.axhline(0, color=GREY, linewidth=1)
        share = f"{(oriented > 0).sum()} of {len(rows)} with the paper's sign"
        axes.set(xlabel="size of the difference in the paper (points)", title=f"{title}: {share}")
        axes.set_xlim(0.08, 20)
        axes.set_xticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    panels[0].set_ylabel("ours, in the paper's direction (points)")
    handles, labels = panels[0].get_legend_handles_labels()
    titles = [TITLES[label].split(":")[0] for label in labels]
    figure.legend(handles, titles, loc="outside lower center", ncols=8, handletextpad=0.2, columnspacing=1.2)
    figure.drawn = drawn
    return figure
