"""The live panels of notebook 13: a ranked list, the maps of a pair, and planes of all images.

Pictures are HTML that holds their bytes. The button under a picture chooses it, by mouse or by
keyboard.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import ipywidgets as w
import matplotlib
import numpy as np
import pandas as pd
from anywidget import AnyWidget
from einops import rearrange
from matplotlib.colors import Normalize, to_hex
from PIL import Image
from torchvision.utils import make_grid
from traitlets import Any, Int, List, Unicode

from ..config import LABELS
from ..data import Record, load_images
from ..data.cache import decode
from ..data.truth import attributes, has_truth, masks
from ..evaluation.explain import model_inputs, record_attention, stages
from ..evaluation.map_scores import score
from ..evaluation.verification import Calibration
from ..models.fusion import BRANCHES
from .browse import Rankings, Switches, pair_maps
from .grids import as_pixels, overlay
from .style import GREEN, GREY, VERMILLION

SHOWN = 20  # images in the list
ACROSS = 40  # images in a row of the sheet of thumbnails
NEIGHBOURS = 8  # lines from an image
TAB20 = matplotlib.colormaps["tab20"].colors
PALETTE = list(map(to_hex, TAB20[::2] + TAB20[1::2]))  # ten dark colours, then ten light ones
ANGLES = "yaw", "phase"  # -180 and 180 degrees are the same


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
    """The person and the camera, both as a reader counts them."""
    person = f"person {record.identity}" if record.identity > 0 else "distractor"
    return f"{person}, camera {record.camera + 1}"


def colour_code(values: pd.Series) -> tuple[list[str], list[str], list[str]]:
    """A CSS colour for each of some values (N,), and the names and colours of their legend.

    Up to twenty values have colours that can be named. Measures are on a scale: the two names are
    those of its ends. Shades show themselves, and of more values the legend only says what they
    are: it has no colours.
    """
    codes, names = pd.factorize(values, sort=True)
    if values.dtype == float:
        scale = matplotlib.colormaps["hsv" if values.name in ANGLES else "viridis"]
        colours = map(to_hex, scale(Normalize()(values)))
        bar = map(to_hex, scale(np.linspace(0, 1, 9)))
        return [*colours], [f"{values.min():g}", f"{values.max():g}"], [*bar]
    if str(names[0]).startswith("#"):
        return values.tolist(), ["each image in the shade itself"], []
    if len(names) > len(PALETTE):
        hues = codes * 137 % 360  # neighbours in number differ in hue
        return [f"hsl({hue} 70% 45%)" for hue in hues], [f"one colour for each {values.name}"], []
    named = [str(name) or "none" for name in names]
    return [PALETTE[code] for code in codes], named, PALETTE[: len(named)]


def choice(name: str, options: dict | list) -> w.Dropdown:
    return w.Dropdown(options=options, description=name, layout=w.Layout(width="280px"))


def tick(name: str, **state) -> w.Checkbox:
    return w.Checkbox(description=name, indent=False, layout=w.Layout(width="auto"), **state)


def row(widgets: list, react) -> w.HBox:
    """Widgets side by side; `react` is called when the value of one changes."""
    for widget in widgets:
        widget.observe(lambda _: react(), "value")
    return w.HBox(widgets)


class Planes(AnyWidget):
    """The same points on canvases side by side, each with its picture.

    A lasso on one of them, by mouse or by keys, chooses points in all. A file that is dropped on
    one comes as a message: its name is `dropped`, and its bytes are the buffer, if there are at
    most ten million.
    """

    _esm = Path(__file__).with_name("plane.js")
    # Of each plane: its `title`; `points`, [x, y] from 0 to 1, or [None, None]: left out; and the
    # `neighbours` by the number of a point.
    planes = List().tag(sync=True)
    captions = List().tag(sync=True)
    people = List().tag(sync=True)  # identities; none is below 1
    colours = List().tag(sync=True)
    legend = List().tag(sync=True)  # names and colours, as of `colour_code`
    framed = List().tag(sync=True)  # the points that the list shows, then the query or None
    queries = Int().tag(sync=True)  # so many of the first points are squares
    sheet = Unicode().tag(sync=True)  # the address of all pictures, 32 pixels wide and 64 high
    chosen = Any().tag(sync=True)  # the points in the lasso; None without a lasso


class Explorer:
    """Widgets over the rankings of a test set. A notebook's cells show `lists`, `maps` and `plane`.

    Args:
        rankings: of the test set.
        points: by the name of a feature (Q + G, 2), the places of queries, then of gallery images,
            in the plane of this feature, 0 to 1. An image whose place is nan is left out. The first
            two planes stand side by side, others can be chosen.
        calibrations: of all features, by whether the camera embedding is used. With one, the pair
            that is explained has its probability of being one person.
    """

    def __init__(
        self,
        rankings: Rankings,
        points: dict[str, np.ndarray],
        calibrations: dict[bool, Calibration] | None = None,
    ):
        data = rankings.dataset
        self.rankings = rankings
        self.calibrations = calibrations or {}
        self.queries = len(data.query)
        self.records = [*data.query, *data.gallery]
        self.has_truth = has_truth(data)
        # What is known of each image, queries first; cameras count from 1.
        self.labels = pd.DataFrame(self.records).rename(columns={"path": "file"})
        if self.has_truth:
            self.labels = attributes(self.records)
        self.labels["camera"] += 1
        self.folder = TemporaryDirectory()  # of the reader's own picture
        self.lists = w.VBox([*self._switches(), self._ranked_list()])
        self.maps = self._maps()
        self.plane = self._plane(points)
        self._show_list()

    @property
    def selection(self) -> pd.DataFrame:
        """The images in the lasso, nearest to the query first; without a lasso, those of the list.

        A row each, with its file, identity, camera (from 1), cosine to the query by the chosen
        feature, and attributes where they are known. The index counts queries, then the gallery.
        """
        rankings, query = self._asked()
        use = self.embedding.value
        vectors = np.vstack(self.rankings.retrieval[use].select(self.feature.value))
        asked, _ = rankings.retrieval[use].select(self.feature.value)
        labels = self.labels.copy()
        labels.insert(3, "cosine", vectors @ asked[query])
        if self.canvas.chosen is None:
            return labels.iloc[self.listed]
        return labels.iloc[self.canvas.chosen].sort_values("cosine", ascending=False)

    def _switches(self) -> list[w.HBox]:
        """What is asked, and what the gallery is ranked by."""
        names = ["all", *self.rankings.model.widths]
        cameras = np.unique(self.labels["camera"][self.queries :]).tolist()
        slow = {"continuous_update": False}  # a change counts when the slider is let go of
        self.query = w.IntSlider(max=self.queries - 1, description="query", **slow)
        self.feature = choice("feature", {LABELS[name]: name for name in names})
        numbers = {str(camera): camera for camera in cameras}
        self.camera = choice("camera", {"any": 0} | numbers)
        self.rerank = tick("re-ranking")
        self.weight = w.FloatSlider(0.3, max=1, step=0.1, description="its weight", **slow)
        self.embedding = tick("camera embedding", value=True)
        self.wrong = tick("only wrong")
        self.own = tick("own picture", disabled=True)
        self.query.observe(lambda _: self.own.set_trait("value", False), "value")
        switches = [self.rerank, self.weight, self.embedding, self.wrong, self.own]
        asked = [self.query, self.feature, self.camera]
        self.upload = w.FileUpload(accept="image/*", description="own picture")
        self.upload.observe(self._take, "value")
        self.problem = w.Label()
        return [
            row(asked, self._show_list),
            row(switches, self._show_list),
            w.HBox([self.upload, self.problem]),
        ]

    def _take(self, change) -> None:
        """Asks for the picture that was uploaded."""
        for file in change.new:
            self.ask(file["name"], bytes(file["content"]))

    def _take_dropped(self, _, message: dict, buffers: list) -> None:
        """Asks for the picture that was dropped on a plane."""
        name = message["dropped"]
        if buffers:
            self.ask(name, bytes(buffers[0]))
        else:
            self.problem.value = f"{name}: expected at most 10 MB, found more"

    def ask(self, name: str, content: bytes) -> None:
        """Makes a picture of one's own, a file's name and content, the query.

        Of a file that is no picture the widget says why, and all else stays.
        """
        file = Path(self.folder.name, "own.png")
        upload = file.with_name("upload")
        upload.write_bytes(content)
        try:
            pixels = decode(upload, self.rankings.model.config.image_size)
        except ValueError as error:
            self.problem.value = str(error).replace(str(upload), name)
            return
        Image.fromarray(pixels).save(file)
        self.problem.value = name
        self.pictured = self.rankings.of_picture(file)
        self.own.disabled = False
        if self.own.value:
            self._show_list()
        else:
            self.own.value = True

    def _asked(self) -> tuple[Rankings, int]:
        """The rankings in use, and which of their queries is asked for."""
        if self.own.value:
            return self.pictured, 0
        return self.rankings, self.query.value

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
        heads = range(1, model.config.fusion.heads + 1)
        self.stage = choice("Grad-CAM", places)
        self.unit = choice("attention", units)
        self.head = choice("head", {"mean": 0} | {str(head): head for head in heads})
        self.explained = w.HTML()
        switches = row([self.stage, self.unit, self.head], self._show_maps)
        return w.VBox([switches, self.explained])

    def _plane(self, points: dict[str, np.ndarray]) -> w.VBox:
        """Planes of all images, a lasso around some of them, and what their colours mean."""
        images = load_images([record.path for record in self.records], (64, 32))
        sheet = rearrange(make_grid(images, nrow=ACROSS, padding=0), "rgb h w -> h w rgb")
        self.planes = {name: self._placed(name, places) for name, places in points.items()}
        names = {LABELS[name]: name for name in points}
        self.sides = [choice("left", names), choice("right", names)]
        self.sides[1].index = min(1, len(names) - 1)
        self.canvas = Planes(
            captions=[who(record) for record in self.records],
            people=self.labels["identity"].tolist(),
            queries=self.queries,
            sheet=address(sheet.numpy(), "jpeg"),
        )
        self.canvas.observe(lambda _: self._show_list(), "chosen")
        self.canvas.on_msg(self._take_dropped)
        self.colour = choice("colour", self.labels.columns.drop("file").tolist())
        self._show_planes()
        self._show_colours()
        self.lassoed = w.HTML()
        sides = row(self.sides, self._show_planes)
        above = w.HBox([row([self.colour], self._show_colours), self.lassoed])
        return w.VBox([above, sides, self.canvas])

    def _placed(self, feature: str, places: np.ndarray) -> dict:
        """A plane as `Planes` takes it."""
        is_drawn = np.isfinite(places)
        drawn = np.flatnonzero(is_drawn.all(axis=1))
        nearest = self.rankings.neighbours(feature, drawn, NEIGHBOURS)
        return {
            "title": LABELS[feature],
            "points": np.where(is_drawn, places.round(4), None).tolist(),  # JSON has no nan
            "neighbours": dict(zip(drawn.tolist(), nearest.tolist(), strict=True)),
        }

    def _show_planes(self) -> None:
        self.canvas.planes = [self.planes[side.value] for side in self.sides]

    def _show_colours(self) -> None:
        self.canvas.colours, *self.canvas.legend = colour_code(self.labels[self.colour.value])

    def _among(self) -> np.ndarray:
        """(G,) bool: the gallery images that the lasso and the switches leave."""
        gallery = self.labels[self.queries :]
        among = np.full(len(gallery), True)
        count = "all"
        if self.canvas.chosen is not None:
            among = gallery.index.isin(self.canvas.chosen)
            count = f"<b>{among.sum()}</b> of"
        self.lassoed.value = f"{count} {len(gallery)} gallery images"
        if self.camera.value:
            among &= gallery["camera"] == self.camera.value
        if self.wrong.value:
            among &= gallery["identity"] != self.record.identity
        return np.asarray(among)

    def _show_list(self) -> None:
        """Shows the list anew, and with it the maps."""
        rankings, query = self._asked()
        self.record = rankings.dataset.query[query]
        weight = self.weight.value if self.rerank.value else 1.0
        switches = Switches(self.feature.value, self.embedding.value, weight)
        among = self._among()
        ranked, cosines = rankings.listed([query], switches, top=SHOWN, among=among)
        left = ranked.gallery[0] >= 0
        self.listed = self.queries + ranked.gallery[0][left]
        self.cosines = cosines[0]
        for place, tile in enumerate(self.tiles):
            if place >= len(self.listed):
                tile.layout.visibility = "hidden"
                continue
            picture, button = tile.children
            picture.value = figure(self.records[self.listed[place]].path, "", 60)
            sign, colour = "✗", VERMILLION
            if self.own.value:  # nobody knows who it is
                sign, colour = "", GREY
            elif ranked.match[0, place]:
                sign, colour = "✓", GREEN
            button.description = f"{sign} {cosines[0, place]:.3f}"
            button.style.button_color = colour
            tile.layout.visibility = "visible"
        ranking = self.rankings.ranking(switches)
        caption = "own picture,<br>no camera"
        if not self.own.value:
            caption = f"{who(self.record)}<br>"
            for precision in ranking.average_precision[ranking.queries == query]:  # none, or one
                caption += f"AP {precision:.1%}"
        self.asked.value = figure(self.record.path, caption, 100)
        self.accuracy.value = (
            f"<b>whole test set:<br>mAP {ranking.mAP:.1%}<br>rank-1 {ranking.rank(1):.1%}</b>"
        )
        self.canvas.framed = [*self.listed.tolist(), None if self.own.value else query]
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
        pair = [self.record, self.records[self.listed[self.place]]]
        images, cam, attention = pair_maps(
            self.rankings.model,
            pair,
            self.stage.value,
            self.unit.value,
            head=self.head.value,
            use_cameras=self.embedding.value,
        )
        scored = self.has_truth and not self.own.value
        person = masks(pair, images.shape[2:]) if scored else None
        names = ["query<br>&nbsp;", f"image {self.place + 1}<br>{self._same_person()}"]
        html = ""
        for side, pixels in enumerate(as_pixels(images)):
            html += figure(pixels, names[side], 90)
            for title, maps in (("Grad-CAM", cam), ("attention", attention)):
                caption = f"{title}<br>"
                if scored:
                    caption += f"energy {score(maps, person)['energy'][side]:.2f}"
                html += figure(overlay(pixels, maps[side].numpy()), caption, 90)
        self.explained.value = html

    def _same_person(self) -> str:
        """The probability that the pair is one person, where all features are calibrated.

        No pairs of an image with the camera embedding and one without it were calibrated.
        """
        calibration = self.calibrations.get(self.embedding.value)
        mixed = self.own.value and self.embedding.value
        if calibration is None or mixed or self.feature.value != "all":
            return "&nbsp;"
        return f"same: {calibration.probability(self.cosines[self.place]):.2f}"
