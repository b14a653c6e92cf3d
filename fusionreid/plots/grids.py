"""Figures that are grids of person images: sheets, ranked lists, and maps laid over images.

A grid is one canvas of pixels, however many images it holds. Frames and texts are drawn over it.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from einops import rearrange
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ..data import Record
from ..data.cache import decode
from .style import GREEN, VERMILLION, styled

MAX_HEIGHT = 8.5  # inches of a grid, so that it fits a screen and a page
HEAT = matplotlib.colormaps["inferno"]


def _array(values) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)


def as_pixels(images) -> np.ndarray:
    """Images as pixels to draw: (N, H, W, 3) uint8.

    Args:
        images: (N, 3, H, W) or (N, H, W, 3), uint8, or floats normalised to -1 to 1.

    Raises:
        ValueError: if the images have another shape.
    """
    pixels = _array(images)
    if pixels.ndim != 4 or 3 not in (pixels.shape[1], pixels.shape[3]):
        raise ValueError(f"images: expected (N, 3, H, W) or (N, H, W, 3), found {pixels.shape}")
    if pixels.shape[3] != 3:
        pixels = rearrange(pixels, "n rgb h w -> n h w rgb")
    if pixels.dtype == np.uint8:
        return pixels
    values = (pixels * 0.5 + 0.5) * 255
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


class _Grid:
    """A figure of images in rows and columns. `add` puts an image in, `finish` returns the figure.

    Args:
        rows, columns: the label of each row and of each column, "" for none.
        size: height and width of an image in pixels.
        gutters: columns before which a wider gap separates groups.
        caption_lines: lines of text under an image.
        width: of the figure in inches.
        bar: inches to leave free for a colour bar.
    """

    def __init__(self, rows, columns, size, *, gutters=(), caption_lines=0, width=9.0, bar=0.0):
        self.high, self.wide = size
        gap = round(0.06 * self.wide)
        under = caption_lines * round(0.2 * self.wide)

        # Where columns and rows begin on the canvas, in pixels.
        self.left = np.arange(len(columns)) * (self.wide + gap)
        for gutter in gutters:
            self.left[gutter:] += 3 * gap
        self.top = np.arange(len(rows)) * (self.high + gap + under)
        across = self.left[-1] + self.wide
        down = self.top[-1] + self.high + under
        self.canvas = np.full((down, across, 3), 255, np.uint8)

        # Inches for the labels beside and above the canvas.
        lines = "\n".join(map(str, rows)).split("\n")
        longest_line = max(map(len, lines))
        most_lines = max(len(str(label).splitlines()) for label in columns)
        beside = 0.1 + bar + 0.08 * longest_line
        above = 0.1 + 0.16 * most_lines
        scale = min((width - beside) / across, MAX_HEIGHT / down)  # inches a pixel
        self.figure, self.axes = plt.subplots(
            figsize=(scale * across + beside, scale * down + above)
        )
        self.figure.saved_dpi = 100  # more would only enlarge the file: the images are small
        self.points = 72 * scale * self.wide  # the width of an image in points
        self.axes.set_xticks(self.left + self.wide / 2, columns)
        self.axes.set_yticks(self.top + self.high / 2, rows)
        self.axes.xaxis.tick_top()
        self.axes.tick_params(length=0)
        self.axes.spines[:].set_visible(False)
        self.axes.grid(False)

    def add(self, row: int, column: int, image: np.ndarray, caption: str = "") -> None:
        """Puts an image (h, w, 3) uint8 on the canvas."""
        x = self.left[column]
        y = self.top[row]
        self.canvas[y : y + self.high, x : x + self.wide] = image
        if caption:
            self.axes.text(
                x + self.wide / 2,
                y + self.high,
                caption,
                size=0.17 * self.points,
                ha="center",
                va="top",
                linespacing=1.05,
            )

    def frame(self, row: int, column: int, text: str, colour: str) -> None:
        """Frames an image, with a sign on a disc in its lower right corner."""
        corner = self.left[column] - 0.5, self.top[row] - 0.5
        look = {"fill": False, "ec": colour, "lw": 2, "clip_on": False}
        self.axes.add_patch(Rectangle(corner, self.wide, self.high, **look))
        self.axes.text(
            self.left[column] + 0.82 * self.wide,
            self.top[row] + self.high - 0.18 * self.wide,
            text,
            color="white",
            size=0.2 * self.points,
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.2", "fc": colour, "ec": "white", "lw": 0.7},
        )

    def finish(self, drawn: pd.DataFrame) -> Figure:
        """The figure, with the numbers drawn."""
        self.axes.imshow(self.canvas, interpolation="antialiased")
        down, across, _ = self.canvas.shape
        self.axes.set_xlim(-1.5, across + 0.5)
        self.axes.set_ylim(down + 0.5, -1.5)
        self.figure.drawn = drawn
        return self.figure


@styled
def contact_sheet(
    records: Sequence[Record], *, identities: int, tile: tuple[int, int], seed: int = 0
) -> Figure:
    """What the data look like: identities in rows, cameras in columns, one image of each.

    Where a camera did not see somebody there is none.

    Args:
        records: of one split.
        identities: how many to show; they are drawn with `seed` among those that most cameras saw.
        tile: height and width in pixels that each image is resized to.
    """
    table = pd.DataFrame(records).sample(frac=1, random_state=seed)
    table = table.drop_duplicates(["identity", "camera"])
    paths = table.pivot(index="identity", columns="camera", values="path")
    cameras = paths.count(axis=1).sample(frac=1, random_state=seed)
    paths = paths.loc[sorted(cameras.nlargest(identities).index)]
    people = [f"person {identity}" for identity in paths.index]
    grid = _Grid(people, [f"camera\n{camera}" for camera in paths], tile, width=7.0)
    for row, column in np.ndindex(paths.shape):
        path = paths.iloc[row, column]
        if pd.notna(path):
            grid.add(row, column, decode(path, tile, "bicubic"))
    files = paths.stack().dropna().map(lambda path: path.name)
    return grid.finish(files.reset_index(name="file"))


@styled
def batch_sheet(
    images, identities: Sequence, *, columns: Sequence[str] = (), width: float = 9.0
) -> Figure:
    """A batch as the model sees it after augmentation: each identity's K images in a row.

    Args:
        images: (P x K, 3, H, W), normalised or uint8, those of one identity together.
        identities: (P x K,), the labels of the rows.
        columns: their labels, if they have any.
        width: of the figure in inches.
    """
    pixels = as_pixels(images)
    shown = pd.Series(_array(identities))
    begins = shown != shown.shift()  # a row
    rows = begins.cumsum() - 1
    places = shown.groupby(rows).cumcount()
    drawn = pd.DataFrame({"row": rows, "column": places, "identity": shown})
    columns = columns or [""] * (places.max() + 1)
    grid = _Grid(shown[begins], columns, pixels.shape[1:3], width=width)
    for row, column, image in zip(drawn["row"], drawn["column"], pixels, strict=True):
        grid.add(row, column, image)
    return grid.finish(drawn)


@styled
def retrieved_lists(queries, lists, right, *, labels: Sequence[str], similarities=None) -> Figure:
    """Queries, and the gallery images ranked first for each.

    An image of the query's person has a green frame and a tick, another one an orange frame and a
    cross.

    Args:
        queries: (Q, H, W, 3) uint8 or (Q, 3, H, W).
        lists: (Q, R, H, W, 3) or (Q, R, 3, H, W), best first.
        right: (Q, R) bool, whether the image shows the query's person.
        labels: of the rows, for example identity and average precision.
        similarities: (Q, R) numbers to write under the images.
    """
    queries = as_pixels(queries)
    lists = [as_pixels(images) for images in lists]
    right = np.asarray(right, bool)
    columns = ["query", *range(1, 1 + right.shape[1])]
    caption_lines = 0 if similarities is None else 1
    grid = _Grid(labels, columns, queries.shape[1:3], gutters=(1,), caption_lines=caption_lines)
    drawn = []
    for row, query in enumerate(queries):
        grid.add(row, 0, query)
        for place, match in enumerate(right[row]):
            rank = place + 1
            caption = "" if similarities is None else f"{similarities[row][place]:.3f}"
            grid.add(row, rank, lists[row][place], caption)
            sign, colour = ("✓", GREEN) if match else ("✗", VERMILLION)
            grid.frame(row, rank, sign, colour)
            drawn.append({"query": labels[row], "rank": rank, "right": match})
    return grid.finish(pd.DataFrame(drawn))


def overlay(image: np.ndarray, heat: np.ndarray, highest: float = 3) -> np.ndarray:
    """A map laid over an image in colours, from 0 to `highest` times the map's mean.

    Maps of one scale can be compared, and an even map looks even. The image turns grey. It is seen
    best where the map is low.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w), not negative; resized to the image.
    """
    heat = heat / max(highest * heat.mean(), 1e-12)
    small = Image.fromarray(heat.astype(np.float32))
    height, width, _ = image.shape
    large = small.resize((width, height), Image.Resampling.BICUBIC)
    heat = np.clip(large, 0, 1)[..., None]
    colours = 255 * HEAT(heat[..., 0])[..., :3]
    grey = np.asarray(Image.fromarray(image).convert("L"))
    opacity = 0.3 + 0.45 * heat**0.5  # the root, so that an even map hides the image
    mixed = (1 - opacity) * grey[..., None] + opacity * colours
    return np.clip(mixed, 0, 255).astype(np.uint8)


@styled
def heat_maps(
    images,
    maps: Mapping[str, Sequence],
    *,
    gutters: Sequence[int] = (),
    labels: Sequence[str] = (),
    width: float = 10.0,
    scores: Mapping[str, Sequence[float]] | None = None,
    highest: int = 3,
) -> Figure:
    """Maps laid over images: an image a row, a kind of map a column (Fig. 7, Fig. 9).

    All maps share one colour scale, that of `overlay`.

    Args:
        images: (N, 3, H, W) or (N, H, W, 3).
        maps: title of the column -> (N, h, w), or a list of N maps on grids of different sizes.
        gutters: columns before which a wider gap separates groups; the image is column 0.
        labels: of the rows.
        width: of the figure in inches.
        scores: title of the column -> (N,), a number to write under each map.
        highest: the brightest colour, in times a map's mean.

    Raises ValueError if a column has not one map for each image.
    """
    pixels = as_pixels(images)
    rows = labels or [""] * len(pixels)
    grid = _Grid(
        rows,
        ["image", *maps],
        pixels.shape[1:3],
        gutters=gutters,
        caption_lines=1 if scores else 0,
        width=width,
        bar=0.7,
    )
    for row, image in enumerate(pixels):
        grid.add(row, 0, image)
    drawn = []
    for column, (title, heats) in enumerate(maps.items(), start=1):
        for row, (image, heat) in enumerate(zip(pixels, map(_array, heats), strict=True)):
            numbers = {"image": labels[row] if labels else row, "map": title}
            caption = ""
            if scores:
                numbers["score"] = float(scores[title][row])
                caption = f"{numbers['score']:.2f}"
            grid.add(row, column, overlay(image, heat, highest), caption)
            y, x = np.indices(heat.shape)
            cells = {"y": y.ravel(), "x": x.ravel(), "value": heat.ravel()}
            drawn.append(pd.DataFrame(numbers | cells))
    bar = grid.figure.colorbar(
        matplotlib.cm.ScalarMappable(cmap=HEAT),
        ax=grid.axes,
        fraction=0.02,
        pad=0.015,
        aspect=30,
        shrink=0.6,
    )
    labels = ["0", "1\nthe map's mean", f"{highest} times\nand more"]
    bar.set_ticks([0, 1 / highest, 1], labels=labels)
    bar.outline.set_visible(False)
    drawn = pd.concat(drawn, ignore_index=True)
    return grid.finish(drawn.replace("\n", " ", regex=True))


def attention_heads(
    image, maps: Mapping[str, Sequence], scores: Mapping[str, Sequence] | None = None
) -> Figure:
    """Fig. 8: the weights of every head for one person; a row is one unit of one layer.

    All heads share one colour scale, that of `overlay`. A head's score, if it has one, is under it.

    Args:
        image: (3, H, W) or (H, W, 3).
        maps: title of the row -> (heads, h, w), weights of the global token to the local tokens.
        scores: title of the row -> (heads,).
    """

    def by_head(values: Mapping) -> dict[str, tuple]:
        columns = zip(*values.values(), strict=True)
        return {f"head\n{number}": column for number, column in enumerate(columns, start=1)}

    images = np.repeat(as_pixels(image[None]), len(maps), axis=0)
    heads = by_head(maps)
    return heat_maps(
        images, heads, labels=list(maps), scores=by_head(scores or {}), gutters=(1,), width=13
    )
