"""The live panels of notebook 13: a ranked list, the maps of a pair, and a plane of all images.

Pictures are HTML that holds their bytes. The button under a picture chooses it, by mouse or by
keyboard.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import ipywidgets as w
import numpy as np
import pandas as pd
from anywidget import AnyWidget
from einops import rearrange
from PIL import Image
from torchvision.utils import make_grid
from traitlets import Any, Int, List, Unicode

from ..config import LABELS
from ..data import Record, load_images
from ..data.truth import has_truth, masks
from ..evaluation.explain import model_inputs, record_attention, stages
from ..evaluation.map_scores import score
from ..evaluation.verification import Calibration
from ..models.fusion import BRANCHES
from .browse import Rankings, Switches, pair_maps
from .grids import as_pixels, overlay
from .style import GREEN, VERMILLION

SHOWN = 20  # images in the list
ACROSS = 40  # images in a row of the sheet of thumbnails


def address(picture: np.ndarray | Path, kind: str = "png") -> str:
    """The data address of a file, or of pixels (H, W, 3) uint8, which are encoded as `kind`."""
    if isinstance(picture, np.ndarray):
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, kind)
        content = buffer.getvalue()
    else:
        content = picture.read_bytes()
        kind = picture.suffix[1:]
    return f"data:image/{kind};base64,{b64encode(content).decode()}"


def figure(picture: np.ndarray | Path, caption: str, width: int) -> str:
    """HTML of a picture, `width` pixels wide, and its caption."""
    return (
        '<div style="display: inline-block; margin: 0 3px; text-align: center; line-height: 1.3">'
        f'<img src="{address(picture)}" style="width: {width}px; max-width: none; display: block">'
        f"{caption}</div>"
    )


def who(record: Record) -> str:
    person = f"person {record.identity}" if record.identity > 0 else "distractor"
    return f"{person}, camera {record.camera + 1}"


def choice(name: str, options: dict) -> w.Dropdown:
    return w.Dropdown(options=options.items(), description=name, layout=w.Layout(width="280px"))


def tick(name: str, **state) -> w.Checkbox:
    return w.Checkbox(description=name, indent=False, layout=w.Layout(width="auto"), **state)


def row(widgets: list, react) -> w.HBox:
    """Widgets side by side; `react` is called when the value of one changes."""
    for widget in widgets:
        widget.observe(lambda _: react(), "value")
    return w.HBox(widgets)


class Plane(AnyWidget):
    """Points on a canvas, each with its picture. A lasso, by mouse or by keys, chooses some."""

    _esm = Path(__file__).with_name("plane.js")
    points = List().tag(sync=True)  # [x, y] from 0 to 1, or [None, None]: left out
    captions = List().tag(sync=True)
    hues = List().tag(sync=True)  # degrees
    framed = List().tag(sync=True)  # the points that the list shows, then the query
    queries = Int().tag(sync=True)  # so many of the first points are squares
    sheet = Unicode().tag(sync=True)  # the address of all pictures, `across` in a row
    across = Int().tag(sync=True)
    chosen = Any().tag(sync=True)  # the points in the lasso; None without a lasso


class Explorer:
    """Widgets over the rankings of a test set. A notebook's cells show `lists`, `maps` and `plane`.

    Args:
        rankings: of the test set.
        points: (Q + G, 2), the places of queries, then of gallery images, in the plane, 0 to 1. An
            image whose place is nan is left out.
        calibrations: of all features, by whether the camera embedding is used. With one, the pair
            that is explained has its probability of being one person.
    """

    def __init__(
        self,
        rankings: Rankings,
        points: np.ndarray,
        calibrations: dict[bool, Calibration] | None = None,
    ):
        data = rankings.dataset
        self.rankings = rankings
        self.calibrations = calibrations or {}
        self.queries = len(data.query)
        self.records = [*data.query, *data.gallery]
        self.labels = pd.DataFrame(self.records).drop(columns="path")
        self.has_truth = has_truth(data)
        self.lists = w.VBox([*self._switches(), self._ranked_list()])
        self.maps = self._maps()
        self.plane = self._plane(points)
        self._show_list()

    def _switches(self) -> list[w.HBox]:
        """What is asked, and what the gallery is ranked by."""
        names = ["all", *self.rankings.model.widths]
        cameras = np.unique(self.rankings.gallery.cameras).tolist()
        slow = {"continuous_update": False}  # a change counts when the slider is let go of
        self.query = w.IntSlider(max=self.queries - 1, description="query", **slow)
        self.feature = choice("feature", {LABELS[name]: name for name in names})
        numbers = {str(camera + 1): camera for camera in cameras}
        self.camera = choice("camera", {"any": None} | numbers)
        self.rerank = tick("re-ranking")
        self.weight = w.FloatSlider(0.3, max=1, step=0.1, description="its weight", **slow)
        self.embedding = tick("camera embedding", value=True)
        self.wrong = tick("only wrong")
        switches = [self.rerank, self.weight, self.embedding, self.wrong]
        asked = [self.query, self.feature, self.camera]
        return [row(asked, self._show_list), row(switches, self._show_list)]

    def _ranked_list(self) -> w.HBox:
        """The query, the accuracy, and the first gallery images."""
        self.asked = w.HTML()
        self.accuracy = w.HTML()
        self.buttons = []
        self.tiles = []
        small = {"width": "66px", "height": "28px", "margin": "0", "padding": "0"}
        for place in range(SHOWN):
            button = w.Button(layout=small, style={"text_color": "white"})
            button.on_click(lambda _, place=place: self.choose(place))
            self.buttons.append(button)
            tile = w.VBox([w.HTML(), button], layout=w.Layout(margin="2px"))
            self.tiles.append(tile)
        grid = w.GridBox(self.tiles, layout=w.Layout(grid_template_columns="repeat(10, 70px)"))
        return w.HBox([w.VBox([self.asked, self.accuracy]), grid])

    def _maps(self) -> w.VBox:
        """The maps of the query and the chosen image, and which maps these are."""
        model = self.rankings.model
        image, _ = model_inputs(model, self.records[:1])
        with record_attention(model) as attention:
            model.embed(image)
        places = {}
        for branch in BRANCHES:
            for stage in stages(model, branch, image):
                places[f"{LABELS[branch]}, {stage}"] = branch, stage
        units = {}
        for layer, unit, branch in attention:
            units[f"{LABELS[branch]}, {unit.upper()} {layer}"] = layer, unit, branch
        heads = next(iter(attention.values())).shape[1]
        numbers = {str(head): head for head in range(1, heads + 1)}
        self.stage = choice("Grad-CAM", places)
        self.unit = choice("attention", units)
        self.head = choice("head", {"mean": 0} | numbers)
        self.explained = w.HTML()
        switches = row([self.stage, self.unit, self.head], self._show_maps)
        return w.VBox([switches, self.explained])

    def _plane(self, points: np.ndarray) -> w.VBox:
        """All images, a lasso around some of them, and what their colours mean."""
        images = load_images([record.path for record in self.records], (64, 32))
        sheet = rearrange(make_grid(images, nrow=ACROSS, padding=0), "rgb h w -> h w rgb")
        places = np.where(np.isfinite(points), points.round(4), None)  # JSON has no nan
        self.canvas = Plane(
            points=places.tolist(),
            captions=[who(record) for record in self.records],
            queries=self.queries,
            sheet=address(sheet.numpy(), "jpeg"),
            across=min(ACROSS, len(images)),
        )
        self.canvas.observe(lambda _: self._show_list(), "chosen")
        self.colour = choice("colour", {name: name for name in self.labels})
        self._show_colours()
        self.lassoed = w.HTML()
        above = w.HBox([row([self.colour], self._show_colours), self.lassoed])
        return w.VBox([above, self.canvas])

    def _show_colours(self) -> None:
        values = self.labels[self.colour.value]
        self.canvas.hues = (values * 137 % 360).tolist()  # neighbours in number differ in hue

    def _among(self) -> np.ndarray:
        """(G,) bool: the gallery images that the lasso and the switches leave."""
        query = self.labels.iloc[self.query.value]
        gallery = self.labels[self.queries :]
        among = np.full(len(gallery), True)
        count = "all"
        if self.canvas.chosen is not None:
            among = gallery.index.isin(self.canvas.chosen)
            count = f"<b>{among.sum()}</b> of"
        self.lassoed.value = f"{count} {len(gallery)} gallery images"
        if self.camera.value is not None:
            among &= gallery["camera"] == self.camera.value
        if self.wrong.value:
            among &= gallery["identity"] != query["identity"]
        return np.asarray(among)

    def _show_list(self) -> None:
        """Shows the list anew, and with it the maps."""
        query = self.query.value
        weight = self.weight.value if self.rerank.value else 1.0
        switches = Switches(self.feature.value, self.embedding.value, weight)
        among = self._among()
        ranked, cosines = self.rankings.listed([query], switches, top=SHOWN, among=among)
        left = ranked.gallery[0] >= 0
        self.listed = self.queries + ranked.gallery[0][left]
        self.cosines = cosines[0]
        for place, tile in enumerate(self.tiles):
            if place >= len(self.listed):
                tile.layout.visibility = "hidden"
                continue
            picture, button = tile.children
            right = ranked.match[0, place]
            sign = "✓" if right else "✗"
            picture.value = figure(self.records[self.listed[place]].path, "", 60)
            button.description = f"{sign} {cosines[0, place]:.3f}"
            button.style.button_color = GREEN if right else VERMILLION
            tile.layout.visibility = "visible"
        ranking = self.rankings.ranking(switches)
        caption = f"{who(self.records[query])}<br>"
        for precision in ranking.average_precision[ranking.queries == query]:  # none, or one
            caption += f"AP {precision:.1%}"
        self.asked.value = figure(self.records[query].path, caption, 100)
        self.accuracy.value = (
            f"<b>whole test set:<br>mAP {ranking.mAP:.1%}<br>rank-1 {ranking.rank(1):.1%}</b>"
        )
        self.canvas.framed = [*self.listed.tolist(), query]
        self.choose(0)

    def choose(self, place: int) -> None:
        """Explains the query and the image at a place of the list, from 0."""
        self.place = place
        for other, button in enumerate(self.buttons):
            button.layout.border = "2px solid black" if other == place else None
        self._show_maps()

    def _show_maps(self) -> None:
        if self.place >= len(self.listed):
            self.explained.value = "No image is left in the list."
            return
        query = self.records[self.query.value]
        second = self.records[self.listed[self.place]]
        pair = [query, second]
        images, cam, attention = pair_maps(
            self.rankings.model,
            pair,
            self.stage.value,
            self.unit.value,
            head=self.head.value,
            use_cameras=self.embedding.value,
        )
        person = masks(pair, images.shape[2:]) if self.has_truth else None
        names = ["query<br>&nbsp;", f"image {self.place + 1}<br>{self._same_person()}"]
        html = ""
        for side, pixels in enumerate(as_pixels(images)):
            html += figure(pixels, names[side], 90)
            for title, maps in (("Grad-CAM", cam), ("attention", attention)):
                caption = f"{title}<br>"
                if self.has_truth:
                    caption += f"energy {score(maps, person)['energy'][side]:.2f}"
                html += figure(overlay(pixels, maps[side].numpy()), caption, 90)
        self.explained.value = html

    def _same_person(self) -> str:
        """The probability that the pair is one person, where all features are calibrated."""
        calibration = self.calibrations.get(self.embedding.value)
        if calibration is None or self.feature.value != "all":
            return "&nbsp;"
        return f"same: {calibration.probability(self.cosines[self.place]):.2f}"
