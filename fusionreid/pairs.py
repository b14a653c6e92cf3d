"""Table VI as a picture: what each branch reaches alone, what fusion makes of it, and both together."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fusionreid.style import FEATURE_LABELS, FEATURE_STYLES, styled

_SHIFTS = {"cnn": -0.2, "cnn_fused": -0.2, "all": 0.0, "transformer": 0.2, "transformer_fused": 0.2}
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
