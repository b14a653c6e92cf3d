"""The live panels of notebook 13, of ipywidgets alone: a ranked list, the maps of a pair, a plane of all images.

Pictures are HTML that holds their bytes. The button under a picture chooses it, by mouse or keyboard.
"""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import ipywidgets as w
import numpy as np
from einops import rearrange
from PIL import Image

from ..config import LABELS
from ..data import load_images
from ..data.truth import attributes, has_truth, masks
from ..evaluation.browse import Rankings, Switches, pair_maps
from ..evaluation.explain import load, record_attention, stages
from ..evaluation.map_scores import score
from ..models.fusion import BRANCHES
from .grids import as_pixels, overlay
from .style import GREEN, VERMILLION

SHOWN, ACROSS = 20, 40  # images in a list, and in a row of the sheet of thumbnails
STYLE = """<style>
.plane {position: relative; width: 660px; height: 400px; margin: 30px 40px; border: 1px solid #ccc}
.plane i {position: absolute; width: 7px; height: 7px; margin: -3px; border-radius: 50%%}
.plane .query {border-radius: 0}
.plane i:hover {z-index: 9; opacity: 1 !important; outline: 2px solid black}
.plane i:hover::after {content: ""; position: absolute; left: 10px; top: -28px; width: 32px; height: 64px;
  border: 2px solid white; background: url("%s") var(--at)}
</style>"""


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


class Explorer:
    """Widgets over the rankings of a test set; `lists`, `maps` and `plane` are shown in a notebook's cells.

    Args:
        points: (Q + G, 2) places of queries, then gallery images in the plane, 0 to 1; nan for those that are left out.
    """

    def __init__(self, rankings: Rankings, points: np.ndarray):
        data, model = rankings.dataset, rankings.model
        self.rankings, self.points, self.records = rankings, points, [*data.query, *data.gallery]
        self.truth = attributes(self.records) if has_truth(data) else None
        image, names = load(model, data.query[:1])[0], ["all", *model.widths]
        with record_attention(model) as attention:
            model.embed(image)
        choices = [(branch, stage) for branch in BRANCHES for stage in stages(model, branch, image)]
        heads = next(iter(attention.values())).shape[1]
        self.values = {"person": [r.identity for r in self.records], "camera": [r.camera for r in self.records]}
        self.values |= {} if self.truth is None else {"group": self.truth["group"].tolist()}

        self.query, self.weight = (
            w.IntSlider(max=len(data.query) - 1, description="query", continuous_update=False),
            w.FloatSlider(0.3, max=1, step=0.1, description="its weight", continuous_update=False),
        )
        self.embedding, self.rerank, self.alike, self.wrong = (
            w.Checkbox(name == "camera embedding", description=name, indent=False, layout=w.Layout(width="auto"))
            for name in ("camera embedding", "re-ranking", "only look-alikes", "only wrong")
        )
        self.alike.disabled = self.truth is None
        self.feature = choice("feature", {LABELS.get(name, "all six"): name for name in names})
        self.camera = choice("camera", {"any": 0} | {str(n): n for n in np.unique(rankings.labels[3] + 1).tolist()})
        self.stage = choice("Grad-CAM", {f"{LABELS[branch]}, {stage}": (branch, stage) for branch, stage in choices})
        self.unit = choice("attention", {f"{LABELS[b]}, {u.upper()} {n}": (n, u, b) for n, u, b in attention})
        self.head = choice("head", {"mean": 0} | {str(head): head for head in range(1, heads + 1)})
        self.colour = choice("colour", {name: name for name in self.values})
        self.across, self.upward = (
            w.FloatRangeSlider(value=(0, 1), max=1, step=0.01, description=name, continuous_update=False)
            for name in ("left, right", "low, high")
        )
        self.switches = Switches()
        self.accuracy, self.asked, self.explained, self.dots, self.marks = (w.HTML() for _ in range(5))
        self.pictures = [w.HTML() for _ in range(SHOWN)]
        self.buttons = [
            w.Button(layout=w.Layout(width="66px", height="28px", margin="0", padding="0")) for _ in range(SHOWN)
        ]
        for place, button in enumerate(self.buttons):
            button.on_click(lambda _, place=place: self.choose(place))
        self._lay_out()
        self._draw_plane()
        self._list()

    def _lay_out(self) -> None:
        """Puts the widgets into boxes, and says what follows when one is moved."""
        rows = (
            [self.query, self.feature, self.camera],
            [self.rerank, self.weight, self.embedding, self.alike, self.wrong],
        )
        tiles = [w.VBox(each, layout=w.Layout(margin="2px")) for each in zip(self.pictures, self.buttons, strict=True)]
        grid = w.GridBox(tiles, layout=w.Layout(grid_template_columns="repeat(10, 70px)"))
        self.lists = w.VBox([*map(w.HBox, rows), w.HBox([w.VBox([self.asked, self.accuracy]), grid])])
        self.maps = w.VBox([w.HBox([self.stage, self.unit, self.head]), self.explained])
        sheet = rearrange(load_images([each.path for each in self.records], (64, 32)), "n c h w -> n h w c").numpy()
        sheet = np.concatenate([sheet, np.zeros((-len(sheet) % ACROSS, *sheet.shape[1:]), np.uint8)])
        sheet = rearrange(sheet, "(rows across) h w c -> (rows h) (across w) c", across=ACROSS)
        style = w.HTML(STYLE % address(sheet, "JPEG"))
        self.plane = w.VBox([w.HBox([self.colour, self.across, self.upward]), style, self.marks, self.dots])
        for react, moved in {
            self._list: (self.query, self.feature, self.embedding, self.rerank, self.weight, self.camera, self.alike,
                         self.wrong, self.across, self.upward),
            self._draw_maps: (self.stage, self.unit, self.head),
            self._draw_plane: (self.colour, self.across, self.upward),
        }.items():  # fmt: skip
            for widget in moved:
                widget.observe(lambda _, react=react: react(), "value")

    def inside(self) -> np.ndarray:
        """(Q + G,) the images in the chosen part of the plane, all if it is the whole plane."""
        chosen = np.ones(len(self.points), bool)
        for (low, high), place in zip((self.across.value, self.upward.value), self.points.T, strict=True):
            chosen &= (low, high) == (0, 1) or (low <= place) & (place <= high)
        return chosen

    def _list(self) -> None:
        """The list anew, and with it what depends on it."""
        query, labels = self.query.value, self.rankings.labels
        self.switches = Switches(
            self.feature.value, self.embedding.value, self.weight.value if self.rerank.value else 1.0
        )
        among = self.inside()[len(labels[0]) :]
        if self.camera.value:
            among &= labels[3] == self.camera.value - 1
        if self.alike.value:
            group = self.truth["group"].to_numpy()
            among &= (group[len(labels[0]) :] == group[query]) & (group[query] > 0)
        if self.wrong.value:
            among &= labels[1] != labels[0][query]
        (self.found, right), similarity = self.rankings.listed(query, self.switches, among)
        for place, (picture, button) in enumerate(zip(self.pictures, self.buttons, strict=True)):
            picture.layout.visibility = button.layout.visibility = "visible" if place < len(right) else "hidden"
            if place < len(right):
                picture.value = figure(self._gallery(place).path, "", 60)
                button.description = f"{'✓' if right[place] else '✗'} {similarity[place]:.3f}"
                button.style.button_color = GREEN if right[place] else VERMILLION
                button.style.text_color = "white"
        ranking = self.rankings.ranking(self.switches)
        own = ranking.average_precision[ranking.queries == query]
        asked = self.records[query]
        caption = f"person {asked.identity}, camera {asked.camera + 1}<br>" + "".join(f"AP {each:.1%}" for each in own)
        self.asked.value = figure(asked.path, caption, 100)
        self.accuracy.value = f"<b>whole test set:<br>mAP {ranking.mAP:.1%}<br>rank-1 {ranking.rank(1):.1%}</b>"
        near = ", ".join(f"#image-{len(labels[0]) + place}" for place in self.found[:SHOWN])
        self.marks.value = (
            f"<style>#image-{query} {{outline: 3px solid black; z-index: 5}}"
            f"{near or '#none'} {{outline: 1px solid black; z-index: 4}}</style>"
        )
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
        images, *maps = pair_maps(
            self.rankings.model, pair, *chosen, head=self.head.value, use_cameras=self.embedding.value
        )
        person = None if self.truth is None else masks(pair, images.shape[2:])
        cells = []
        for side, (name, pixels) in enumerate(
            zip(("query", f"image {self.place + 1}"), as_pixels(images), strict=True)
        ):
            cells.append(figure(pixels, f"{name}<br>&nbsp;", 90))
            for title, heat in zip(("Grad-CAM", "attention"), maps, strict=True):
                energy = "" if person is None else f"energy {score(heat, person)['energy'][side]:.2f}"
                cells.append(figure(overlay(pixels, heat[side].numpy()), f"{title}<br>{energy}", 90))
        self.explained.value = "".join(cells)

    def _draw_plane(self) -> None:
        value = self.values[self.colour.value]
        split = ["query"] * len(self.rankings.labels[0]) + ["gallery"] * len(self.rankings.labels[1])
        dots = [
            f'<i id="image-{n}" class="{split[n]}" style="left:{100 * x:.1f}%;'
            f"top:{100 - 100 * y:.1f}%;background:hsl({value[n] * 137 % 360} 70% 45%);opacity:{1 if chosen else 0.12};"
            f'--at:-{n % ACROSS * 32}px -{n // ACROSS * 64}px"></i>'
            for n, ((x, y), chosen) in enumerate(zip(self.points, self.inside(), strict=True))
            if np.isfinite(x)
        ]
        self.dots.value = f'<div class="plane">{"".join(dots)}</div>'
