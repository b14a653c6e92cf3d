"""Figures that are grids of person images: contact sheets, batches, retrieved lists, maps laid over images.

A grid is one canvas of pixels on one axes, however many images it holds; frames and labels are drawn over it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from .style import GREEN, HEAT, VERMILLION, styled, with_numbers

MAX_HEIGHT = 8.5  # of a grid in inches, so that it fits a screen and a page


def _array(values) -> np.ndarray:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)


def as_pixels(images) -> np.ndarray:
    """Pixels to draw, (N, H, W, 3) uint8, from these or from (N, 3, H, W), uint8 or normalised float in -1 to 1."""
    images = _array(images)
    if images.ndim != 4 or 3 not in (images.shape[1], images.shape[3]):
        raise ValueError(f"images: expected (N, 3, H, W) or (N, H, W, 3), found {images.shape}")
    if images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    if images.dtype == np.uint8:
        return images
    return np.clip((images * 0.5 + 0.5) * 255 + 0.5, 0, 255).astype(np.uint8)


class _Grid:
    """Images (h, w, 3) of one size in rows and columns; None is a gap. `bar` is room for a colour bar, in inches.

    `captions` are lines of text under images, by (row, column).
    """

    def __init__(self, tiles, *, rows: Sequence = (), columns: Sequence = (), gutters: Sequence[int] = (),
                 width: float = 9.0, bar: float = 0.0, captions: Mapping[tuple, str] | None = None):  # fmt: skip
        high, wide = self.tile = next(
            tile.shape[:2] for row in tiles for tile in row if tile is not None
        )
        gap = max(2, round(0.06 * wide))
        self.left = [
            c * (wide + gap) + 3 * gap * sum(g <= c for g in gutters)
            for c in range(max(map(len, tiles)))
        ]
        captions = captions or {}
        under = round(0.2 * wide) * max(
            (text.count("\n") + 1 for text in captions.values()), default=0
        )
        self.top = [r * (high + gap + under) for r in range(len(tiles))]
        canvas = np.full((self.top[-1] + high + under, self.left[-1] + wide, 3), 255, np.uint8)
        beside = (
            0.1
            + bar
            + 0.08
            * max((len(line) for label in rows for line in str(label).split("\n")), default=0)
        )
        above = 0.1 + 0.16 * max((str(label).count("\n") + 1 for label in columns), default=0)
        scale = min(
            (width - beside) / canvas.shape[1], MAX_HEIGHT / canvas.shape[0]
        )  # inches a pixel
        self.figure, axes = plt.subplots(
            figsize=(scale * canvas.shape[1] + beside, scale * canvas.shape[0] + above)
        )
        self.figure.saved_dpi = 120  # more would only make larger files of the same small images
        self.axes, self.points = axes, 72 * scale
        for r, row in enumerate(tiles):
            for c, tile in enumerate(row):
                if tile is None:
                    self.frame(
                        r, c, facecolor="#F4F4F4", edgecolor="#BBBBBB", hatch="///", linewidth=0.6
                    )
                else:
                    canvas[self.top[r] : self.top[r] + high, self.left[c] : self.left[c] + wide] = (
                        tile
                    )
        for (r, c), text in captions.items():
            place = self.left[c] + wide / 2, self.top[r] + high
            axes.text(
                *place,
                text,
                size=0.17 * wide * self.points,
                ha="center",
                va="top",
                linespacing=1.05,
            )
        axes.imshow(canvas, interpolation="antialiased")
        axes.set(xlim=(-1.5, canvas.shape[1] + 0.5), ylim=(canvas.shape[0] + 0.5, -1.5))
        axes.set_xticks(np.add(self.left[: len(columns)], wide / 2), columns)
        axes.set_yticks(np.add(self.top[: len(rows)], high / 2), rows)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)

    def frame(self, row: int, column: int, **style) -> None:
        """Draws a rectangle around a tile."""
        corner = (self.left[column] - 0.5, self.top[row] - 0.5)
        self.axes.add_patch(Rectangle(corner, *self.tile[::-1], clip_on=False, **style))


@styled
def contact_sheet(
    records: Sequence, *, identities: int, tile: tuple[int, int], seed: int = 0
) -> Figure:
    """What the data look like: identities in rows, cameras in columns, one image of each.

    Records are (path, identity, camera) of one split. The `identities` are as many, drawn at random with `seed` among
    those seen by most cameras; `tile` is the height and width in pixels that each image is resized to.
    """
    table = pd.DataFrame(list(records), columns=["path", "identity", "camera"]).sample(
        frac=1, random_state=seed
    )
    one = table.drop_duplicates(["identity", "camera"]).pivot(
        index="identity", columns="camera", values="path"
    )
    seen = (
        one.notna()
        .sum(axis=1)
        .sample(frac=1, random_state=seed)
        .sort_values(ascending=False, kind="stable")
    )
    one = one.loc[sorted(seen.index[:identities])]

    def load(path):
        return (
            None
            if pd.isna(path)
            else np.asarray(Image.open(path).convert("RGB").resize(tile[::-1]))
        )

    tiles = [[load(path) for path in row] for row in one.to_numpy()]
    grid = _Grid(tiles, rows=one.index, columns=[f"camera\n{name}" for name in one], width=7.0)
    files = one.map(lambda path: Path(path).name, na_action="ignore").stack().dropna()
    return with_numbers(grid.figure, files.reset_index(name="file"))


@styled
def batch_sheet(images, identities: Sequence, *, width: float = 9.0) -> Figure:
    """A batch as the model sees it after augmentation: an identity a row, its K images side by side.

    Images are (P x K, 3, H, W), normalised, those of one identity together; identities (P x K,) label the rows.
    """
    drawn = pd.DataFrame({"identity": _array(identities)})
    drawn.insert(0, "row", (drawn["identity"] != drawn["identity"].shift()).cumsum() - 1)
    drawn.insert(1, "column", drawn.groupby("row").cumcount())
    tiles = [as_pixels(images)[places] for places in drawn.groupby("row").indices.values()]
    return with_numbers(
        _Grid(tiles, rows=drawn.drop_duplicates("row")["identity"], width=width).figure, drawn
    )


@styled
def retrieved_lists(queries, lists, right, *, labels: Sequence[str], similarities=None) -> Figure:
    """Queries and the gallery images ranked first for each; images of the query's own camera are removed beforehand.

    A right image has a solid green frame and a tick, a wrong one a dashed orange frame and a cross.

    Args:
        queries: (Q, H, W, 3) uint8 or (Q, 3, H, W).
        lists: (Q, R, H, W, 3) or (Q, R, 3, H, W), best first.
        right: (Q, R) bool, whether the image shows the query's person.
        labels: of the rows, for example identity and average precision.
        similarities: (Q, R) numbers to print under the images.
    """
    queries, right, lists = (
        as_pixels(queries),
        _array(right).astype(bool),
        [as_pixels(row) for row in lists],
    )
    if right.shape != (len(queries), len(lists[0])):
        raise ValueError(
            f"right: expected shape {(len(queries), len(lists[0]))}, found {right.shape}"
        )
    tiles = [[query, *row] for query, row in zip(queries, lists, strict=True)]
    columns = ["query", *range(1, 1 + right.shape[1])]
    numbers = (
        {}
        if similarities is None
        else {(r, c + 1): f"{x:.3f}" for (r, c), x in np.ndenumerate(similarities)}
    )
    grid = _Grid(tiles, rows=labels, columns=columns, gutters=(1,), captions=numbers)
    tile = grid.tile[1] * grid.points  # its width in points
    for row, column in np.ndindex(right.shape):
        good = right[row, column]
        colour = GREEN if good else VERMILLION
        dash = "-" if good else (0, (2.2, 1.2))
        grid.frame(
            row,
            column + 1,
            fill=False,
            edgecolor=colour,
            linewidth=min(3.0, 0.04 * tile),
            linestyle=dash,
        )
        corner = (
            grid.left[column + 1] + 0.82 * grid.tile[1],
            grid.top[row] + grid.tile[0] - 0.18 * grid.tile[1],
        )
        disc = dict(boxstyle="circle,pad=0.2", facecolor=colour, edgecolor="white", linewidth=0.7)
        mark = dict(color="white", size=0.2 * tile, ha="center", va="center", bbox=disc)
        grid.axes.text(*corner, "✓" if good else "✗", **mark)
    rows, ranks = np.indices(right.shape)
    drawn = pd.DataFrame(
        {
            "query": np.asarray(labels)[rows.ravel()],
            "rank": ranks.ravel() + 1,
            "right": right.ravel(),
        }
    )
    return with_numbers(grid.figure, drawn)


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map (h, w), lowest to highest, as colours over the greyed image (H, W, 3), seen through where it is low."""
    heat = (heat - heat.min()) / max(heat.max() - heat.min(), 1e-12)
    smooth = Image.fromarray(np.asarray(heat, np.float32)).resize(
        image.shape[1::-1], Image.Resampling.BICUBIC
    )
    heat = np.clip(np.asarray(smooth), 0, 1)[..., None]
    colours, opacity = 255 * matplotlib.colormaps[HEAT](heat[..., 0])[..., :3], 0.3 + 0.45 * heat
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.clip((1 - opacity) * grey[..., None] + opacity * colours, 0, 255).astype(np.uint8)


def _long(heat: np.ndarray, **names) -> pd.DataFrame:
    """A map (h, w) as rows of (names, y, x, value)."""
    y, x = np.indices(heat.shape)
    return pd.DataFrame(names | {"y": y.ravel(), "x": x.ravel(), "value": heat.ravel()})


def _finished(grid: _Grid, drawn: list[pd.DataFrame]) -> Figure:
    """The grid's figure with a colour bar and the numbers drawn."""
    place = {"fraction": 0.02, "pad": 0.015, "aspect": 30, "shrink": 0.6}
    bar = grid.figure.colorbar(matplotlib.cm.ScalarMappable(cmap=HEAT), ax=grid.axes, **place)
    bar.set_ticks([0, 1], labels=["low", "high"])
    bar.outline.set_visible(False)
    return with_numbers(grid.figure, pd.concat(drawn, ignore_index=True))


@styled
def heat_maps(images, maps: Mapping[str, Sequence], *, gutters: Sequence[int] = (), labels: Sequence[str] = (),
              width: float = 10.0, scores: Mapping[str, Sequence[float]] | None = None) -> Figure:  # fmt: skip
    """Maps laid over images: an image a row, a map a column, each with a colour scale of its own (Fig. 7, Fig. 9).

    Args:
        images: (N, 3, H, W) or (N, H, W, 3).
        maps: column title -> (N, h, w), or a list of N maps on grids of different sizes.
        gutters: columns (the image is column 0) before which a wider gap separates groups.
        labels: of the rows.
        scores: column title -> (N,), a number to print under each map.
    """
    pixels = as_pixels(images)
    tiles, drawn, captions = [[image] for image in pixels], [], {}
    for column, (name, values) in enumerate(maps.items(), start=1):
        values = [_array(heat) for heat in values]
        if len(values) != len(pixels) or any(heat.ndim != 2 for heat in values):
            raise ValueError(
                f"maps[{name!r}]: expected {len(pixels)} of (h, w), found {[x.shape for x in values]}"
            )
        for n, heat in enumerate(values):
            tiles[n].append(overlay(pixels[n], heat))
            names = {"image": labels[n] if labels else n, "map": name.replace("\n", " ")}
            if scores:
                names["score"] = float(scores[name][n])
                captions[n, column] = f"{names['score']:.2f}"
            drawn.append(_long(heat, **names))
    columns = ["image", *maps]
    grid = _Grid(
        tiles,
        rows=labels,
        columns=columns,
        gutters=gutters,
        width=width,
        bar=0.7,
        captions=captions,
    )
    return _finished(grid, drawn)


@styled
def attention_heads(
    image, maps: Mapping[str, np.ndarray], scores: Mapping[str, Sequence] | None = None
) -> Figure:
    """Fig. 8: the weights of every head for one person; a row is one unit of one layer.

    Each head has a colour scale of its own; its highest weight stands under it, below its score if there is one.

    Args:
        image: (3, H, W) or (H, W, 3).
        maps: row title -> (heads, h, w), weights of the global token to the local tokens.
        scores: row title -> (heads,).
    """
    pixels, maps = (
        as_pixels(_array(image)[None])[0],
        {name: _array(values) for name, values in maps.items()},
    )
    tiles = [[pixels, *(overlay(pixels, heat) for heat in values)] for values in maps.values()]
    drawn, captions = [], {}
    for row, (name, values) in enumerate(maps.items()):
        for head, heat in enumerate(values, start=1):
            names, captions[row, head] = (
                {"unit": name.replace("\n", " "), "head": head},
                f"max {heat.max():.2f}",
            )
            if scores:
                names["score"] = float(scores[name][head - 1])
                captions[row, head] = f"{names['score']:.2f}\n{captions[row, head]}"
            drawn.append(_long(heat, **names))
    columns = ["image", "head 1", *range(2, max(map(len, maps.values())) + 1)]
    grid = _Grid(
        tiles,
        rows=list(maps),
        columns=columns,
        gutters=(1,),
        width=10.0,
        bar=0.7,
        captions=captions,
    )
    return _finished(grid, drawn)
