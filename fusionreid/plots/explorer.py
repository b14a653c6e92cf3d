"""The live panels of notebook 13: a ranked list and the maps of a pair, of ipywidgets, and a plane of all images.

Pictures are HTML that holds their bytes. The button under a picture chooses it, by mouse or keyboard.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import ipywidgets as w
import numpy as np
from anywidget import AnyWidget
from einops import rearrange
from PIL import Image
from traitlets import Any, Int, List, Unicode

from ..config import LABELS
from ..data import load_images
from ..data.truth import attributes, has_truth, masks
from ..evaluation.explain import load, record_attention, stages
from ..evaluation.map_scores import score
from ..models.fusion import BRANCHES
from .browse import Rankings, Switches, pair_maps
from .grids import as_pixels, overlay
from .style import GREEN, VERMILLION

SHOWN, ACROSS = 20, 40  # images in a list, and in a row of the sheet of thumbnails


def address(picture: np.ndarray | str | Path, kind: str = "PNG") -> str:
    """A data address of a file, or of pixels (H, W, 3) uint8."""
    if isinstance(picture, np.ndarray):
        Image.fromarray(picture).save(buffer := BytesIO(), kind)
        return f"data:image/{kind.lower()};base64,{b64encode(buffer.getvalue()).decode()}"
    return f"data:image/{Path(picture).suffix[1:]};base64,{b64encode(Path(picture).read_bytes()).decode()}"


def figure(picture, caption: str, width: int) -> str:
    return (
        f'<div style="display: inline-block; margin: 0 3px; text-align: center; line-height: 1.3">'
        f'<img src="{address(picture)}" style="width: {width}px; max-width: none; display: block">{caption}</div>'
    )


def choice(name: str, options: dict) -> w.Dropdown:
    return w.Dropdown(options=options.items(), description=name, layout=w.Layout(width="280px"))


class Plane(AnyWidget):
    """Points on a canvas, each with its picture, and a lasso, by mouse or by keys alone, that chooses some of them."""

    _esm = Path(__file__).with_name("plane.js")
    points, captions, hues = (
        List().tag(sync=True) for _ in range(3)
    )  # a point: [x, y] from 0 to 1, or None
    framed = List().tag(sync=True)  # what the list shows, then the query
    queries, across = (
        Int().tag(sync=True),
        Int(ACROSS).tag(sync=True),
    )  # the first points are squares
    sheet = Unicode().tag(sync=True)  # all pictures, `across` in a row
    chosen = Any().tag(sync=True)  # the points in the lasso; None without one


class Explorer:
    """Widgets over the rankings of a test set; `lists`, `maps` and `plane` are shown in a notebook's cells.

    `points` (Q + G, 2) are the places of queries, then gallery images in the plane, 0 to 1; nan: left out.
    """

    def __init__(self, rankings: Rankings, points: np.ndarray):
        data, model = rankings.dataset, rankings.model
        self.rankings, self.records = rankings, [*data.query, *data.gallery]
        self.truth = attributes(self.records) if has_truth(data) else None
        image, names = load(model, data.query[:1])[0], ["all", *model.widths]
        with record_attention(model) as attention:
            model.embed(image)
        choices = [(branch, stage) for branch in BRANCHES for stage in stages(model, branch, image)]
        heads = next(iter(attention.values())).shape[1]
        self.values = {
            "person": [r.identity for r in self.records],
            "camera": [r.camera for r in self.records],
        }
        self.values |= {} if self.truth is None else {"group": self.truth["group"].tolist()}

        self.query = w.IntSlider(
            max=len(data.query) - 1, description="query", continuous_update=False
        )
        self.weight = w.FloatSlider(
            0.3, max=1, step=0.1, description="its weight", continuous_update=False
        )
        self.embedding, self.rerank, self.alike, self.wrong = (
            w.Checkbox(
                name == "camera embedding",
                description=name,
                indent=False,
                layout=w.Layout(width="auto"),
            )
            for name in ("camera embedding", "re-ranking", "only look-alikes", "only wrong")
        )
        self.alike.disabled = self.truth is None
        self.feature = choice("feature", {LABELS.get(name, "all six"): name for name in names})
        self.camera = choice(
            "camera",
            {"any": 0} | {str(n): n for n in np.unique(rankings.gallery.cameras + 1).tolist()},
        )
        self.stage = choice(
            "Grad-CAM", {f"{LABELS[branch]}, {stage}": (branch, stage) for branch, stage in choices}
        )
        self.unit = choice(
            "attention", {f"{LABELS[b]}, {u.upper()} {n}": (n, u, b) for n, u, b in attention}
        )
        self.head = choice("head", {"mean": 0} | {str(head): head for head in range(1, heads + 1)})
        self.colour = choice("colour", {name: name for name in self.values})
        self.switches = Switches()
        self.accuracy, self.asked, self.explained, self.lassoed = (w.HTML() for _ in range(4))
        self.pictures = [w.HTML() for _ in range(SHOWN)]
        small = {"width": "66px", "height": "28px", "margin": "0", "padding": "0"}
        self.buttons = [w.Button(layout=w.Layout(**small)) for _ in range(SHOWN)]
        for place, button in enumerate(self.buttons):
            button.on_click(lambda _, place=place: self.choose(place))
        people = [f"person {r.identity}" if r.identity > 0 else "distractor" for r in self.records]
        self.canvas = Plane(
            points=[
                point.tolist() if np.isfinite(point).all() else None for point in points.round(4)
            ],
            captions=[
                f"{who}, camera {r.camera + 1}" for who, r in zip(people, self.records, strict=True)
            ],
            queries=len(data.query),
            sheet=self._sheet(),
        )
        self._lay_out()
        self._colour()
        self._list()

    def _lay_out(self) -> None:
        """Puts the widgets into boxes, and says what follows when one is moved."""
        asks = [self.query, self.feature, self.camera]
        switches = [self.rerank, self.weight, self.embedding, self.alike, self.wrong]
        explains = [self.stage, self.unit, self.head]
        tiles = [
            w.VBox(each, layout=w.Layout(margin="2px"))
            for each in zip(self.pictures, self.buttons, strict=True)
        ]
        grid = w.GridBox(tiles, layout=w.Layout(grid_template_columns="repeat(10, 70px)"))
        self.lists = w.VBox(
            [w.HBox(asks), w.HBox(switches), w.HBox([w.VBox([self.asked, self.accuracy]), grid])]
        )
        self.maps = w.VBox([w.HBox(explains), self.explained])
        self.plane = w.VBox([w.HBox([self.colour, self.lassoed]), self.canvas])
        moves = {
            self._list: asks + switches,
            self._draw_maps: explains,
            self._colour: [self.colour],
        }
        for react, moved in moves.items():
            for widget in moved:
                widget.observe(lambda _, react=react: react(), "value")
        self.canvas.observe(lambda _: self._list(), "chosen")

    def _sheet(self) -> str:
        """The address of one picture of all images, small, `ACROSS` in a row."""
        sheet = (
            load_images([each.path for each in self.records], (64, 32)).permute(0, 2, 3, 1).numpy()
        )
        sheet = np.concatenate(
            [sheet, np.zeros((-len(sheet) % ACROSS, *sheet.shape[1:]), np.uint8)]
        )
        return address(
            rearrange(sheet, "(rows across) h w c -> (rows h) (across w) c", across=ACROSS), "JPEG"
        )

    def _lassoed(self) -> np.ndarray:
        """(G,) the gallery images in the lasso, all without one."""
        count, total = len(self.rankings.query.ids), len(self.records)
        among = np.isin(
            np.arange(count, total),
            range(total) if self.canvas.chosen is None else self.canvas.chosen,
        )
        what = "all" if self.canvas.chosen is None else f"<b>{among.sum()}</b> of"
        self.lassoed.value = f"{what} {len(among)} gallery images"
        return among

    def _list(self) -> None:
        """The list anew, and with it what depends on it."""
        query = self.query.value
        query_labels, gallery_labels = self.rankings.query, self.rankings.gallery
        weight = self.weight.value if self.rerank.value else 1.0
        self.switches = Switches(self.feature.value, self.embedding.value, weight)
        among = self._lassoed()
        if self.camera.value:
            among &= gallery_labels.cameras == self.camera.value - 1
        if self.alike.value:
            group = self.truth["group"].to_numpy()
            among &= (group[len(query_labels.ids) :] == group[query]) & (group[query] > 0)
        if self.wrong.value:
            among &= gallery_labels.ids != query_labels.ids[query]
        ranked, similarity = self.rankings.listed(query, self.switches, among)
        self.found, right = ranked.gallery[0], ranked.match[0]
        for place, (picture, button) in enumerate(zip(self.pictures, self.buttons, strict=True)):
            picture.layout.visibility = button.layout.visibility = (
                "visible" if place < len(right) else "hidden"
            )
            if place < len(right):
                picture.value = figure(self._gallery(place).path, "", 60)
                button.description = f"{'✓' if right[place] else '✗'} {similarity[place]:.3f}"
                button.style.button_color = GREEN if right[place] else VERMILLION
                button.style.text_color = "white"
        ranking = self.rankings.ranking(self.switches)
        own = ranking.average_precision[ranking.queries == query]
        asked = self.records[query]
        caption = f"person {asked.identity}, camera {asked.camera + 1}<br>" + "".join(
            f"AP {each:.1%}" for each in own
        )
        self.asked.value = figure(asked.path, caption, 100)
        self.accuracy.value = (
            f"<b>whole test set:<br>mAP {ranking.mAP:.1%}<br>rank-1 {ranking.rank(1):.1%}</b>"
        )
        self.canvas.framed = [*(len(query_labels.ids) + self.found[:SHOWN]).tolist(), query]
        self.choose(0)

    def _gallery(self, place: int):
        """The record of a place of the list."""
        return self.rankings.dataset.gallery[self.found[place]]

    def choose(self, place: int) -> None:
        """Explains the query and the image at a place of the list, from 0."""
        self.place = place
        for other, button in enumerate(self.buttons):
            button.layout.border = "2px solid black" if other == place else None
        self._draw_maps()

    def _draw_maps(self) -> None:
        if self.place >= len(self.found):
            self.explained.value = "No image is left in the list."
            return
        pair = self.records[self.query.value], self._gallery(self.place)
        chosen = self.stage.value, self.unit.value
        how = {"head": self.head.value, "use_cameras": self.embedding.value}
        images, *maps = pair_maps(self.rankings.model, pair, *chosen, **how)
        person, cells = None if self.truth is None else masks(pair, images.shape[2:]), []
        for side, pixels in enumerate(as_pixels(images)):
            name = f"image {self.place + 1}" if side else "query"
            cells.append(figure(pixels, f"{name}<br>&nbsp;", 90))
            for title, heat in zip(("Grad-CAM", "attention"), maps, strict=True):
                energy = (
                    "" if person is None else f"energy {score(heat, person)['energy'][side]:.2f}"
                )
                cells.append(
                    figure(overlay(pixels, heat[side].numpy()), f"{title}<br>{energy}", 90)
                )
        self.explained.value = "".join(cells)

    def _colour(self) -> None:
        self.canvas.hues = [value * 137 % 360 for value in self.values[self.colour.value]]
