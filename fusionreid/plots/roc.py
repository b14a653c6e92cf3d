"""Curves of verification: TAR by FAR (ROC), and whether probabilities come true (reliability)."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluation.verification import Verification
from .style import FEATURE_LABELS, FEATURE_STYLES, GREY, legend_below, styled


@styled
def roc_curves(curves: Mapping[str, Verification]) -> Figure:
    """TAR by FAR, which has a logarithmic axis from 1e-4.

    Args:
        curves: name -> verification. A feature has its own colour and dash, another name is grey.
    """
    far = np.logspace(-4, 0, 121)
    drawn = pd.DataFrame({"FAR": far})
    figure, axes = plt.subplots(figsize=(6.4, 5.0))
    for name, curve in curves.items():
        # The last point whose FAR is not higher.
        tar = curve.tar[np.searchsorted(curve.far, far, "right") - 1]
        drawn[name] = tar
        look = FEATURE_STYLES.get(name, {"color": GREY, "linestyle": "-.", "marker": ""})
        axes.plot(far, 100 * tar, label=FEATURE_LABELS.get(name, name), markevery=20, **look)
    axes.set(xscale="log", xlabel="FAR", ylabel="TAR (%)", ylim=(0, 101))
    legend_below(figure, axes, 3)
    figure.drawn = drawn
    return figure


@styled
def reliability_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The share of genuine pairs by their mean probability, in bins; the dashed line is perfect.

    Args:
        tables: name -> table of `evaluation.verification.reliability`.
    """
    drawn = pd.concat([table.assign(pairs=name) for name, table in tables.items()])
    figure, axes = plt.subplots(figsize=(5.0, 5.0))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", marker="")
    for name, table in tables.items():
        axes.plot(table["predicted"], table["observed"], label=name)
    axes.set(xlabel="probability", ylabel="share of genuine pairs")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    legend_below(figure, axes, 2)
    figure.drawn = drawn
    return figure
