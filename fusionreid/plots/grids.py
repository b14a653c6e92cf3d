"""Figures that are grids of person images: contact sheets, batches, retrieved lists, maps laid over images.

A grid is one canvas of pixels and one axes, however many images it holds; frames and labels are drawn over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .style import BLACK, GREEN, HEAT, VERMILLION, styled

GAP = 0.06  # between tiles, as a fraction of a tile's width
MAX_HEIGHT = 8.5  # of a grid in inches, so that it fits a screen and a page


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def as_pixels(images) -> np.ndarray:
    """Images of any of the project's kinds as pixels to draw.

    Args:
        images: (N, 3, H, W) tensor or array, uint8 or normalised float in -1 to 1, or (N, H, W, 3) uint8.

    Returns:
        (N, H, W, 3) uint8.
    """
    images = _array(images)
    if images.ndim != 4 or (images.shape[1] != 3 and images.shape[3] != 3):
        raise ValueError(f"images: expected (N, 3, H, W) or (N, H, W, 3), found {images.shape}")
    if images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8:
        return images
    return np.clip((images * 0.5 + 0.5) * 255 + 0.5, 0, 255).astype(np.uint8)


class _Grid:
    """An axes in pixels on which tile (row, column) has a known place."""

    def __init__(
        self,
        rows: int,
        columns: int,
        tile: tuple[int, int],
        *,
        width: float,
        gutters: Sequence[int] = (),
        title_room: float = 0.25,
        label_room: float = 0.5,
    ):
        self.tile, self.gap = tile, max(2, round(GAP * tile[1]))
        self.left = [c * (tile[1] + self.gap) + 3 * self.gap * sum(g <= c for g in gutters) for c in range(columns)]
        self.top = [r * (tile[0] + self.gap) for r in range(rows)]
        self.size = (self.top[-1] + tile[0], self.left[-1] + tile[1])
        self.canvas = np.full((*self.size, 3), 255, np.uint8)
        scale = min((width - label_room) / self.size[1], MAX_HEIGHT / self.size[0])
        width = scale * self.size[1] + label_room
        self.figure, self.axes = plt.subplots(figsize=(width, scale * self.size[0] + title_room))
        self.axes.set_axis_off()
        self.points = 72 * scale  # of one pixel

    def put(self, row: int, column: int, image: np.ndarray) -> None:
        """Copies an image (h, w, 3) uint8 into the tile, resized if it has another size."""
        if image.shape[:2] != self.tile:
            image = np.asarray(Image.fromarray(image).resize(self.tile[::-1], Image.Resampling.BICUBIC))
        top, left = self.top[row], self.left[column]
        self.canvas[top : top + self.tile[0], left : left + self.tile[1]] = image

    def frame(self, row: int, column: int, *, inset: float = 0.0, **style) -> None:
        """Draws a rectangle around the tile."""
        corner = (self.left[column] - 0.5 + inset, self.top[row] - 0.5 + inset)
        self.axes.add_patch(Rectangle(corner, self.tile[1] - 2 * inset, self.tile[0] - 2 * inset, **style))

    def column_label(self, column: int, text: str, **style) -> None:
        self.axes.annotate(text, (self.left[column] + self.tile[1] / 2, -0.5), (0, 3), textcoords="offset points",
                           ha="center", va="bottom", **({"fontsize": 9} | style))  # fmt: skip

    def row_label(self, row: int, text: str, **style) -> None:
        self.axes.annotate(text, (-0.5, self.top[row] + self.tile[0] / 2), (-4, 0), textcoords="offset points",
                           ha="right", va="center", **({"fontsize": 9} | style))  # fmt: skip

    def show(self) -> Figure:
        self.axes.imshow(self.canvas, interpolation="antialiased")
        self.axes.set(xlim=(-1.5, self.size[1] + 0.5), ylim=(self.size[0] + 0.5, -1.5))
        self.figure.saved_dpi = 120  # more would only make larger files of the same small images
        return self.figure


@styled
def contact_sheet(records: Sequence, *, identities: int = 8, cameras: Sequence[int] | None = None, seed: int = 0,
                  tile: tuple[int, int] = (128, 64), width: float = 7.0) -> Figure:  # fmt: skip
    """What the data look like: identities in rows, cameras in columns, one image of each.

    Args:
        records: of one split: (path, identity, camera).
        identities: how many rows, drawn at random with `seed` among those seen by most cameras.
        cameras: the columns; by default all that occur.
        tile: height and width in pixels that each image is resized to.
        width: of the figure in inches.
    """
    table = pd.DataFrame([(str(path), identity, camera) for path, identity, camera in records],
                         columns=["path", "identity", "camera"])  # fmt: skip
    cameras = sorted(table["camera"].unique()) if cameras is None else list(cameras)
    seen = table[table["camera"].isin(cameras)].groupby("identity")["camera"].nunique()
    order = seen.sample(frac=1, random_state=seed).sort_values(ascending=False, kind="stable")
    rows = sorted(order.index[:identities])
    chosen = table.sample(frac=1, random_state=seed).drop_duplicates(["identity", "camera"])
    chosen = chosen.set_index(["identity", "camera"])["path"]
    grid = _Grid(len(rows), len(cameras), tile, width=width)
    drawn = []
    for row, identity in enumerate(rows):
        grid.row_label(row, str(identity))
        for column, camera in enumerate(cameras):
            if (identity, camera) in chosen.index:
                path = chosen[identity, camera]
                grid.put(row, column, np.asarray(Image.open(path).convert("RGB")))
                drawn.append({"identity": identity, "camera": camera, "file": path.replace("\\", "/").split("/")[-1]})
            else:
                grid.frame(row, column, facecolor="#F4F4F4", edgecolor="#BBBBBB", hatch="///", linewidth=0.6)
    for column, camera in enumerate(cameras):
        grid.column_label(column, f"camera\n{camera}")
    figure = grid.show()
    figure.drawn = pd.DataFrame(drawn)
    return figure


@styled
def batch_sheet(images, identities: Sequence[int], *, width: float = 9.0) -> Figure:
    """A batch as the model sees it after augmentation: an identity a row, its K images side by side.

    Args:
        images: (P x K, 3, H, W), normalised; images of one identity stand together.
        identities: (P x K,) numbers or names, the labels of the rows.
    """
    pixels, identities = as_pixels(images), _array(identities)
    starts = [0, *(np.flatnonzero(identities[1:] != identities[:-1]) + 1).tolist(), len(identities)]
    columns = max(b - a for a, b in zip(starts, starts[1:], strict=False))
    grid = _Grid(len(starts) - 1, columns, pixels.shape[1:3], width=width, title_room=0.1)
    drawn = []
    for row, (start, end) in enumerate(zip(starts, starts[1:], strict=False)):
        grid.row_label(row, str(identities[start]))
        for column in range(end - start):
            grid.put(row, column, pixels[start + column])
            drawn.append({"row": row, "column": column, "identity": identities[start]})
    figure = grid.show()
    figure.drawn = pd.DataFrame(drawn)
    return figure


@styled
def retrieved_lists(queries, lists, right, *, labels: Sequence[str] | None = None, width: float = 9.0) -> Figure:
    """Queries and the gallery images ranked first for each; images of the query's own camera are removed beforehand.

    A right image has a solid green frame and a tick, a wrong one a dashed red frame and a cross.

    Args:
        queries: (Q, H, W, 3) uint8 or (Q, 3, H, W).
        lists: (Q, R, H, W, 3) or (Q, R, 3, H, W), best first.
        right: (Q, R) bool, whether the image shows the query's person.
        labels: of the rows, for example identity and average precision.
    """
    queries, right, lists = as_pixels(queries), _array(right).astype(bool), [as_pixels(row) for row in lists]
    if right.shape != (len(queries), len(lists[0])):
        raise ValueError(f"right: expected shape {(len(queries), len(lists[0]))}, found {right.shape}")
    grid = _Grid(len(queries), 1 + right.shape[1], queries.shape[1:3], width=width, gutters=(1,), title_room=0.3)
    line = min(3.0, 0.05 * grid.tile[1] * grid.points)
    drawn = []
    grid.column_label(0, "query")
    for rank in range(right.shape[1]):
        grid.column_label(rank + 1, str(rank + 1))
    for row in range(len(queries)):
        grid.put(row, 0, queries[row])
        grid.frame(row, 0, fill=False, edgecolor=BLACK, linewidth=0.8)
        if labels is not None:
            grid.row_label(row, labels[row], fontsize=8)
        for rank, good in enumerate(right[row]):
            grid.put(row, rank + 1, lists[row][rank])
            colour = GREEN if good else VERMILLION
            half = line / grid.points / 2
            grid.frame(row, rank + 1, inset=half, fill=False, edgecolor=colour, linewidth=line, joinstyle="miter",
                       linestyle="-" if good else (0, (2.2, 1.2)))  # fmt: skip
            _mark(grid, row, rank + 1, good, colour)
            drawn.append({"query": labels[row] if labels is not None else row, "rank": rank + 1, "right": bool(good)})
    figure = grid.show()
    figure.drawn = pd.DataFrame(drawn)
    return figure


def _mark(grid: _Grid, row: int, column: int, good: bool, colour: str) -> None:
    """A tick or a cross on a disc in the lower right corner."""
    height, width = grid.tile
    radius = 0.15 * width
    x, y = grid.left[column] + width - 1.25 * radius, grid.top[row] + height - 1.25 * radius
    grid.axes.add_patch(plt.Circle((x, y), radius, facecolor=colour, edgecolor="white", linewidth=0.7, zorder=3))
    strokes = [[(-0.5, 0.05), (-0.12, 0.42), (0.5, -0.4)]] if good else [
        [(-0.4, -0.4), (0.4, 0.4)], [(-0.4, 0.4), (0.4, -0.4)],
    ]  # fmt: skip
    for stroke in strokes:
        xs, ys = zip(*((x + radius * a, y + radius * b) for a, b in stroke), strict=True)
        grid.axes.plot(xs, ys, color="white", linewidth=max(0.8, 0.22 * radius * grid.points), zorder=4,
                       solid_capstyle="round", solid_joinstyle="round")  # fmt: skip


def _overlay(image: np.ndarray, heat: np.ndarray, strength: float) -> np.ndarray:
    """A map (h, w) in 0 to 1 as colours over the greyed image (H, W, 3), which shows through where it is low."""
    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize(image.shape[1::-1], Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth), 0, 1)[..., None]
    colours, opacity = 255 * matplotlib.colormaps[HEAT](heat[..., 0])[..., :3], strength * (0.4 + 0.6 * heat)
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.clip((1 - opacity) * grey[..., None] + opacity * colours, 0, 255).astype(np.uint8)


def _limits(extremes: np.ndarray, shared: str) -> tuple[np.ndarray, np.ndarray]:
    """Ends (rows, columns) of the colour scales from the extremes (rows, columns, 2) of the maps that share one."""
    axes = {"map": (2,), "row": (1, 2), "column": (0, 2), "all": (0, 1, 2)}[shared]
    low, high = extremes.min(axis=axes, keepdims=True), extremes.max(axis=axes, keepdims=True)
    low, high = (np.broadcast_to(end, extremes.shape)[..., 0] for end in (low, np.maximum(high, low + 1e-12)))
    return low, high


def _colour_bar(figure: Figure, axes, ends: tuple[str, str]) -> None:
    scale = matplotlib.cm.ScalarMappable(matplotlib.colors.Normalize(0, 1), HEAT)
    bar = figure.colorbar(scale, ax=axes, fraction=0.02, pad=0.015, aspect=30, shrink=0.6)
    bar.set_ticks([0, 1], labels=ends)
    bar.outline.set_visible(False)


@styled
def heat_maps(images, maps: Mapping[str, np.ndarray], *, shared: str = "map", strength: float = 0.75,
              gutters: Sequence[int] = (), labels: Sequence[str] | None = None, width: float = 10.0,
              ends: tuple[str, str] = ("low", "high")) -> Figure:  # fmt: skip
    """Maps laid over images: an image a row, a map a column (feature maps, Fig. 7, Fig. 9).

    Args:
        images: (N, 3, H, W) or (N, H, W, 3).
        maps: column title -> (N, h, w), or a list of N maps on grids of different sizes.
        shared: which maps share a colour scale: "map" (each its own), "row", "column" or "all".
        strength: of the highest value's colour over the greyed image, 0 to 1.
        gutters: columns (the image is column 0) before which a wider gap separates groups.
        labels: of the rows.
    """
    pixels = as_pixels(images)
    maps = {name: [_array(heat).astype(np.float32) for heat in values] for name, values in maps.items()}
    for name, values in maps.items():
        if len(values) != len(pixels) or any(heat.ndim != 2 for heat in values):
            raise ValueError(f"maps[{name!r}]: expected {len(pixels)} of (h, w), found {[x.shape for x in values]}")
    rows = zip(*maps.values(), strict=True)
    low, high = _limits(np.array([[(heat.min(), heat.max()) for heat in row] for row in rows]), shared)
    grid = _Grid(len(pixels), 1 + len(maps), pixels.shape[1:3], width=width, gutters=gutters, title_room=0.5,
                 label_room=0.9)  # fmt: skip
    grid.column_label(0, "image")
    drawn = []
    for column, (name, values) in enumerate(maps.items(), start=1):
        grid.column_label(column, name)
        for row, heat in enumerate(values):
            share = (heat - low[row, column - 1]) / (high - low)[row, column - 1]
            grid.put(row, column, _overlay(pixels[row], share, strength))
            drawn.append(_long(heat, image=labels[row] if labels else row, map=name.replace("\n", " ")))
    for row in range(len(pixels)):
        grid.put(row, 0, pixels[row])
        if labels is not None:
            grid.row_label(row, labels[row])
    figure = grid.show()
    _colour_bar(figure, grid.axes, ends)
    figure.drawn = pd.concat(drawn, ignore_index=True)
    return figure


@styled
def attention_heads(image, maps: Mapping[str, np.ndarray], *, strength: float = 0.75, width: float = 10.0) -> Figure:
    """Fig. 8: the weights of every head for one person; a row is one unit of one layer and has one colour scale.

    Args:
        image: (3, H, W) or (H, W, 3).
        maps: row title -> (heads, h, w), weights of the global token to the local tokens.
    """
    pixels, maps = as_pixels(_array(image)[None])[0], {name: _array(values) for name, values in maps.items()}
    heads = max(len(values) for values in maps.values())
    grid = _Grid(len(maps), 1 + heads, pixels.shape[:2], width=width, gutters=(1,), title_room=0.4, label_room=1.7)
    grid.column_label(0, "image")
    for head in range(heads):
        grid.column_label(1 + head, f"head {head + 1}" if heads <= 8 or head == 0 else str(head + 1))
    drawn = []
    for row, (name, values) in enumerate(maps.items()):
        grid.row_label(row, name)
        grid.put(row, 0, pixels)
        low, high = float(values.min()), max(float(values.max()), float(values.min()) + 1e-12)
        for head, heat in enumerate(values):
            grid.put(row, 1 + head, _overlay(pixels, (heat - low) / (high - low), strength))
            drawn.append(_long(heat, unit=name.replace("\n", " "), head=head + 1))
    figure = grid.show()
    _colour_bar(figure, grid.axes, ("row's lowest", "row's highest"))
    figure.drawn = pd.concat(drawn, ignore_index=True)
    return figure


def _long(heat: np.ndarray, **names) -> pd.DataFrame:
    """A map (h, w) as rows of (names, y, x, value)."""
    y, x = np.indices(heat.shape)
    return pd.DataFrame(names | {"y": y.ravel(), "x": x.ravel(), "value": heat.ravel()})
