"""The architecture (Sec. III) as a picture: two branches, LRU, stacked HTM, six features in the paper's symbols."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

from .style import BLUE, VERMILLION, styled

FEATURE_SYMBOLS = [
    ("cnn", "f_c", "CNN, GeM"),
    ("transformer", "f_t", "Transformer, class token"),
    ("cnn_refined", "f'_(c,0)", "LRU, GeM"),
    ("transformer_refined", "f'_(t,0)", "LRU, GeM"),
    ("cnn_fused", "f'_(c,L)", "last HTM"),
    ("transformer_fused", "f'_(t,L)", "last HTM"),
]
INK, PALE, NEUTRAL = "#222222", {BLUE: "#DCEBF6", VERMILLION: "#FBE6D8"}, "#EFEFEF"


class _Sheet:
    """Boxes and arrows on an axes in its own units (one unit is about 0.7 inch)."""

    def __init__(self, axes):
        self.axes = axes

    def box(self, x, y, width, height, title, note="", *, edge=INK, face="white", size=10.5, style="-", z=2):
        """A rounded box, centred at (x, y)."""
        self.axes.add_patch(
            FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.12",
                           facecolor=face, edgecolor=edge, linewidth=1.3, linestyle=style, zorder=z)
        )  # fmt: skip
        lines = note.count("\n") + 1 if note else 0
        self.text(x, y + 0.16 * lines, title, size=size, weight="bold", z=z + 3)
        if note:
            self.text(x, y - 0.2, note, size=8, z=z + 3)

    def text(self, x, y, text, *, size=9.0, color=INK, weight="normal", ha="center", va="center", z=6):
        self.axes.text(x, y, text, fontsize=size, color=color, fontweight=weight, ha=ha, va=va, zorder=z,
                       linespacing=1.15)  # fmt: skip

    def line(self, *points, color=INK, style="-", width=1.5, head=True, z=1):
        """A path of straight pieces through the points, with an arrow head at its end."""
        if len(points) > 2:
            xs, ys = zip(*points[:-1], strict=True)
            self.axes.plot(xs, ys, color=color, linestyle=style, linewidth=width, zorder=z, solid_joinstyle="round",
                           solid_capstyle="butt")  # fmt: skip
        self.axes.add_patch(
            FancyArrowPatch(points[-2], points[-1], arrowstyle="-|>" if head else "-", mutation_scale=10, color=color,
                            linestyle=style, linewidth=width, shrinkA=0, shrinkB=0, zorder=z)
        )  # fmt: skip

    def feature(self, x, y, symbol, color, away):
        """A feature vector: three cells and, on the outer side, its symbol."""
        for cell in range(3):
            self.axes.add_patch(Rectangle((x - 0.33 + 0.22 * cell, y - 0.13), 0.22, 0.26, facecolor=color,
                                          edgecolor="white", linewidth=1, zorder=4))  # fmt: skip
        self.text(x, y + 0.38 * away, symbol, size=11.5, color=color)

    def pool(self, x, y, color):
        """Generalised-mean pooling."""
        self.axes.add_patch(Ellipse((x, y), 0.74, 0.38, facecolor="white", edgecolor=color, linewidth=1.2, zorder=4))
        self.text(x, y - 0.01, "GeM", size=7.5)

    def person(self, x, y, height):
        """A pedestrian crop: a figure drawn with a few shapes."""
        width = height / 2
        add, left, low = self.axes.add_patch, x - width / 2, y - height / 2

        def place(points):
            return [(left + width * a, low + height * b) for a, b in points]

        add(Rectangle((left, low), width, height, facecolor="#D8E0E3", edgecolor=INK, linewidth=1.1, zorder=2))
        add(Rectangle((left, low), width, 0.2 * height, facecolor="#BFC7C6", linewidth=0, zorder=2))
        for points, colour in (
            ([(0.33, 0.52), (0.46, 0.52), (0.44, 0.08), (0.30, 0.08)], "#34435E"),
            ([(0.48, 0.52), (0.66, 0.52), (0.76, 0.10), (0.62, 0.08)], "#2A3750"),
            ([(0.30, 0.80), (0.70, 0.80), (0.67, 0.48), (0.33, 0.48)], "#009E73"),
            ([(0.30, 0.80), (0.36, 0.76), (0.26, 0.50), (0.17, 0.52)], "#00805E"),
            ([(0.70, 0.80), (0.64, 0.76), (0.76, 0.50), (0.84, 0.53)], "#00805E"),
        ):
            add(Polygon(place(points), facecolor=colour, edgecolor="none", zorder=3))
        add(Ellipse(place([(0.5, 0.875)])[0], 0.24 * width, 0.13 * height, facecolor="#C68E6A", zorder=3))
        add(Ellipse(place([(0.5, 0.905)])[0], 0.26 * width, 0.085 * height, facecolor="#3B2A20", zorder=3))


def _branch(sheet: _Sheet, name: str, color: str, lane: float, outer: float, title: str, note: str) -> None:
    """One lane from the image to its three features; `outer` is the height of its row of features."""
    away = 1 if outer > lane else -1
    sheet.line((1.25, 3.0 + 0.25 * away), (1.65, 3.0 + 0.25 * away), (1.65, lane), (2.0, lane), color=color)
    sheet.box(2.85, lane, 1.7, 1.15, title, note, edge=color, face=PALE[color])
    sheet.line((3.7, lane), (4.75, lane), color=color)
    sheet.text(4.35, lane - 0.26 * away, rf"$\mathbf{{X}}_{name}$", size=10.5)
    sheet.box(5.35, lane, 1.2, 1.15, "LRU", "depth-wise,\npoint-wise", edge=color, face=PALE[color])
    sheet.line((5.95, lane), (7.35, lane), color=color)
    sheet.text(6.95, lane - 0.26 * away, rf"$\mathbf{{F}}_{name}$", size=10.5)

    # Features, one after the backbone, one after LRU; each leaves the lane outwards.
    sheet.line((4.0, lane), (4.0, outer - 0.17 * away), color=color)
    sheet.line((6.3, lane), (6.3, outer - 0.17 * away), color=color)
    sheet.feature(4.0, outer, rf"$\hat{{f}}_{name}$", color, away)
    sheet.feature(6.3, outer, rf"$f'_{{({name},0)}}$", color, away)
    if name == "c":
        sheet.pool(4.0, lane + 0.95 * away, color)
    else:
        sheet.text(4.1, lane + 0.95 * away, "class\ntoken", size=8, ha="left")
    sheet.pool(6.3, lane + 0.95 * away, color)


def _transmission(sheet: _Sheet, top: float, bottom: float) -> None:
    """HTM 1 in full, then HTM 2 to L, which see the same local tokens again."""
    middle = (top + bottom) / 2
    sheet.box(9.27, middle, 4.1, 4.35, "", edge="#888888", face="white", style=(0, (4, 2)), z=0)
    sheet.box(7.97, middle, 1.21, 3.85, "SEU", "self-attention,\nshared by\nboth", face=NEUTRAL)
    lanes = (("c", BLUE, top, bottom, "t", 1), ("t", VERMILLION, bottom, top, "c", -1))
    for name, color, lane, other, own, off in lanes:
        sheet.box(10.45, lane, 1.2, 1.15, "MFU", "cross-\nattention", edge=color, face=PALE[color])
        sheet.line((8.575, lane), (9.85, lane), color=color)
        sheet.text(9.2, lane + 0.25 * off, rf"$\mathbf{{S}}^g_{name}$  query", size=8.5)
        # The other branch's local tokens are keys and values here.
        rival = VERMILLION if color == BLUE else BLUE
        sheet.line((8.575, other + 0.3 * off), (9.85, lane - 0.32 * off), color=rival, style=(0, (3, 1.5)), width=1.3)
        sheet.text(9.78, middle + 0.5 * off, rf"$\mathbf{{S}}^l_{own}$  key, value", size=8.5, ha="left")
        sheet.line((11.05, lane), (12.0, lane), color=color)
        sheet.text(11.68, lane + 0.27 * off, rf"$f'_{{({name},1)}}$", size=9.5)
        # The global token alone moves on; the local tokens are those of LRU at every HTM.
        sheet.line((7.15, lane), (7.15, middle + 2.42 * off), (12.5, middle + 2.42 * off), (12.5, middle + 1.9 * off),
                   color=color, width=1.1)  # fmt: skip
    sheet.box(12.5, middle, 1.0, 3.85, "HTM", r"$2 \ldots L$", face=NEUTRAL)
    sheet.text(11.2, middle, "HTM 1", size=10.5, weight="bold", ha="right")
    sheet.text(9.9, middle + 2.62, "the same local tokens for every HTM", size=8, color="#444444")


@styled
def architecture() -> Figure:
    """The whole model on one sheet, with the default pair of backbones."""
    figure, axes = plt.subplots(figsize=(11.6, 6.1))
    sheet = _Sheet(axes)
    top, bottom, above, below = 4.35, 1.65, 6.35, -0.35
    sheet.person(0.72, 3.0, 2.1)
    _branch(sheet, "c", BLUE, top, above, "CNN", "ResNet-50")
    _branch(sheet, "t", VERMILLION, bottom, below, "Transformer", "ViT-B/16")
    sheet.box(2.85, 0.42, 1.95, 0.42, "", edge="#888888")
    sheet.text(2.85, 0.42, "camera embedding", size=8)
    sheet.line((2.85, 0.63), (2.85, 1.07), color="#888888")
    _transmission(sheet, top, bottom)

    # Fused features, then the six side by side.
    for name, color, lane, outer in (("c", BLUE, top, above), ("t", VERMILLION, bottom, below)):
        away = 1 if outer > lane else -1
        sheet.line((13.0, lane), (13.6, lane), (13.6, outer - 0.17 * away), color=color)
        sheet.feature(13.6, outer, rf"$f'_{{({name},L)}}$", color, away)
        sheet.line((4.4, outer), (5.9, outer), color=color, width=1.1, head=False)
        sheet.line((6.7, outer), (13.2, outer), color=color, width=1.1, head=False)
        sheet.line((14.0, outer), (14.85, outer), (14.85, 3.0 + 1.1 * away), color=color, width=1.1)
    for cell in range(6):
        color = BLUE if cell < 3 else VERMILLION
        axes.add_patch(Rectangle((14.63, 3.66 - 0.34 * cell), 0.44, 0.34, facecolor=color, edgecolor="white", zorder=4))
    sheet.text(15.2, 3.0, "$f_a$\nfor retrieval", size=10.5, ha="left")
    sheet.text(9.95, above + 0.36, r"in training each of the six features has $L_{ce} + L_{tri}$", size=9)
    parts = ((1.42, 4.62, "Dual-branch\nFeature Extraction"), (4.7, 14.2, "Dual-attention\nMutual Fusion"))
    for left, right, title in parts:
        axes.add_patch(Rectangle((left, -1.05), right - left, 8.8, facecolor="#F5F7F8", linewidth=0, zorder=-1))
        sheet.text((left + right) / 2, 7.42, title, size=10, weight="bold")
    axes.set(xlim=(-0.1, 16.5), ylim=(-1.05, 7.75), aspect="equal")
    axes.set_axis_off()
    figure.drawn = pd.DataFrame(FEATURE_SYMBOLS, columns=["feature", "symbol", "made by"])
    return figure
