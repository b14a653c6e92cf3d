"""The live panels of notebook 13 follow their widgets and the lasso."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from fusionreid import PAPER, build_model, embed
from fusionreid.config import PROFILES
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.evaluation.verification import Calibration
from fusionreid.plots.browse import Rankings, Switches

PLANES = "cnn", "transformer", "all"
explorers = pytest.importorskip("fusionreid.plots.explorer")  # ipywidgets and anywidget


@pytest.fixture(scope="module")
def rankings(tiny_dataset, tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(PROFILES["smoke"].scale(PAPER), num_classes=4, num_cameras=6).eval()
    *people, last = tiny_dataset.gallery
    dataset = replace(tiny_dataset, gallery=[*people, last._replace(identity=0)])  # a distractor
    directory = tmp_path_factory.mktemp("cache")
    retrieval = {
        use: retrieve(model, dataset, cache_directory=directory, use_cameras=use)
        for use in (True, False)
    }
    return Rankings(model, dataset, retrieval)


@pytest.fixture
def explorer(rankings):
    count = len(rankings.dataset.query) + len(rankings.dataset.gallery)
    points = np.random.default_rng(0).random((3, count, 2))
    points[:, -1] = np.nan  # left out of the planes
    return explorers.Explorer(rankings, dict(zip(PLANES, points, strict=True)))


def pictures(explorer):
    """The addresses of the pictures that the list shows."""
    return [
        tile.children[0].value.split('"')[3]
        for tile in explorer.tiles
        if tile.layout.visibility == "visible"
    ]


def signs(explorer):
    return [button.description[0] for button in explorer.buttons[: len(explorer.listed)]]


def test_what_the_plane_is_given_is_json_and_in_order(explorer):
    state = explorer.canvas.get_state()
    records = explorer.records
    planes = json.loads(json.dumps(state["planes"], allow_nan=False))
    assert [plane["title"] for plane in planes] == ["CNN", "Transformer"]
    for plane in planes:
        points = plane["points"]
        assert points[-1] == [None, None] and None not in points[0]
        assert len(points) == len(records) == len(plane["neighbours"]) + 1
    assert len(state["captions"]) == len(state["colours"]) == len(records)
    assert state["people"] == [record.identity for record in records]
    assert state["queries"] == len(explorer.rankings.dataset.query)
    assert state["captions"][3] == f"person {records[3].identity}, camera {records[3].camera + 1}"
    assert state["captions"][-1] == f"distractor, camera {records[-1].camera + 1}"
    assert state["sheet"].startswith("data:image/jpeg;base64,")
    assert "export default" in explorer.canvas._esm


def test_the_list_is_that_of_the_rankings(explorer):
    queries = len(explorer.rankings.dataset.query)
    explorer.query.value = 2
    explorer.feature.value = "cnn"
    ranked, cosines = explorer.rankings.listed([2], Switches("cnn"), top=explorers.SHOWN)
    places = ranked.gallery[0][ranked.gallery[0] >= 0]
    assert explorer.listed.tolist() == (queries + places).tolist()
    assert explorer.buttons[0].description[2:] == f"{cosines[0, 0]:.3f}"
    ranking = explorer.rankings.ranking(Switches("cnn"))
    assert f"mAP {ranking.mAP:.1%}" in explorer.accuracy.value


def test_only_wrong_images_are_shown_when_asked_for(explorer):
    assert "✓" in signs(explorer)
    explorer.wrong.value = True
    assert set(signs(explorer)) == {"✗"}


def test_only_images_of_the_camera_are_shown_when_asked_for(explorer):
    explorer.camera.value = 4  # as a reader counts
    assert {explorer.records[place].camera for place in explorer.listed} == {3}


def test_the_list_holds_the_gallery_images_of_the_lasso_alone(explorer):
    queries = len(explorer.rankings.dataset.query)
    count = len(explorer.rankings.dataset.gallery)
    shown = explorer.listed.tolist()
    whole, _ = explorer.rankings.listed([0], Switches(), top=count)
    inside = [queries + place for place in (9, 17, 2)]
    assert explorer.lassoed.value == f"all {count} gallery images"
    explorer.canvas.chosen = [0, 1, *inside]  # queries lie in it too
    assert explorer.lassoed.value == f"<b>3</b> of {count} gallery images"
    ranked = [queries + place for place in whole.gallery[0]]
    assert explorer.listed.tolist() == [place for place in ranked if place in inside]
    addresses = [explorers.address(explorer.records[place].path) for place in explorer.listed]
    assert pictures(explorer) == addresses
    assert explorer.canvas.framed == [*explorer.listed, explorer.query.value]
    explorer.query.value = 3  # the lasso stays
    assert set(explorer.listed) <= set(inside) and explorer.canvas.framed[-1] == 3
    explorer.query.value = 0
    explorer.canvas.chosen = None
    assert explorer.listed.tolist() == shown


@pytest.mark.parametrize("chosen", [[], [0, 2]])
def test_a_lasso_without_a_gallery_image_empties_the_list(explorer, chosen):
    explorer.canvas.chosen = chosen
    assert not pictures(explorer)
    assert explorer.explained.value == "No image is left in the list."
    explorer.canvas.chosen = None
    assert pictures(explorer)


def test_a_chosen_image_is_explained(explorer):
    explorer.choose(4)
    assert "image 5" in explorer.explained.value
    framed = [place for place, button in enumerate(explorer.buttons) if button.layout.border_top]
    assert framed == [4]
    before = explorer.explained.value
    explorer.head.value = 1
    assert explorer.explained.value != before
    assert explorer.explained.value.count("Grad-CAM") == 2


def test_a_pair_has_its_probability_where_all_features_are_calibrated(rankings, explorer):
    assert "same:" not in explorer.explained.value
    points = np.zeros((explorer.queries + len(rankings.gallery.ids), 2))
    calibrated = explorers.Explorer(rankings, {"all": points}, {True: Calibration(30.0, -29.0)})
    calibrated.choose(2)
    cosine = float(calibrated.buttons[2].description[2:])
    shown = float(calibrated.explained.value.split("image 3<br>same: ")[1][:4])
    assert shown == pytest.approx(1 / (1 + np.exp(29 - 30 * cosine)), abs=0.02)
    for switch, value in ((calibrated.feature, "cnn"), (calibrated.embedding, False)):
        before = switch.value
        switch.value = value
        assert "same:" not in calibrated.explained.value
        switch.value = before
        assert "same:" in calibrated.explained.value


def test_the_colour_and_its_legend_follow_what_is_chosen(explorer):
    assert list(explorer.colour.options) == ["identity", "camera"]
    explorer.colour.value = "camera"
    cameras = [str(record.camera + 1) for record in explorer.records]
    pairs = set(zip(cameras, explorer.canvas.colours, strict=True))
    assert len(pairs) == len(set(cameras)) == len(set(explorer.canvas.colours))
    assert pairs == set(zip(*explorer.canvas.legend, strict=True))


def test_names_have_a_swatch_each():
    values = pd.Series(["coat", "", "hoodie", "coat"], name="top")
    colours, names, swatches = explorers.colour_code(values)
    assert names == ["none", "coat", "hoodie"]
    assert colours == [swatches[1], swatches[0], swatches[2], swatches[1]]
    assert len(set(swatches)) == 3


def test_measures_are_on_a_scale_between_two_ends():
    colours, names, bar = explorers.colour_code(pd.Series([0.5, 2.0, 1.25], name="sleeves"))
    assert names == ["0.5", "2"]
    assert (colours[0], colours[1]) == (bar[0], bar[-1])
    assert len(bar) == len(set(bar)) == 9
    same, _, _ = explorers.colour_code(pd.Series([0.3, 0.3], name="sleeves"))
    assert same == [bar[0]] * 2


def test_the_ends_of_an_angle_are_one_colour():
    ends, _, bar = explorers.colour_code(pd.Series([-180.0, 180.0], name="yaw"))
    red, green, blue = (
        [int(colour[place : place + 2], 16) for colour in ends] for place in (1, 3, 5)
    )
    assert all(abs(low - high) < 32 for low, high in (red, green, blue))
    assert len(set(bar[1:-1])) == 7


def test_shades_show_themselves():
    shades = pd.Series(["#a93611", "#301a20"], name="top_colour_rgb")
    colours, names, swatches = explorers.colour_code(shades)
    assert colours == shades.tolist()
    assert names == ["each image in the shade itself"] and swatches == []


def test_the_legend_of_many_people_says_what_a_colour_is():
    colours, names, swatches = explorers.colour_code(pd.Series(range(140), name="identity"))
    assert names == ["one colour for each identity"] and swatches == []
    assert len(set(colours)) == 140


def test_a_plane_is_chosen_by_its_feature(explorer):
    left, right = explorer.sides
    left.value, right.value = "all", "cnn"
    assert [plane["title"] for plane in explorer.canvas.planes] == ["all six", "CNN"]


def test_neighbours_are_those_of_the_features_among_the_images_of_the_plane(explorer):
    query, gallery = explorer.rankings.retrieval[True].select("transformer")
    vectors = np.vstack([query, gallery])[:-1]  # the last one is left out
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    neighbours = explorer.canvas.planes[1]["neighbours"]
    assert list(neighbours) == list(range(len(vectors)))
    for place, near in neighbours.items():
        assert len(near) == explorers.NEIGHBOURS and place not in near
        expected = np.sort(cosines[place])[::-1][: len(near)]
        np.testing.assert_allclose(cosines[place, near], expected, atol=1e-5)


def test_the_selection_is_the_list_without_a_lasso(explorer):
    explorer.feature.value = "cnn"
    table = explorer.selection
    assert table.index.tolist() == explorer.listed.tolist()
    records = [explorer.records[place] for place in explorer.listed]
    assert table["file"].tolist() == [record.path for record in records]
    assert table["identity"].tolist() == [record.identity for record in records]
    assert table["camera"].tolist() == [record.camera + 1 for record in records]
    shown = [float(button.description[2:]) for button in explorer.buttons[: len(table)]]
    np.testing.assert_allclose(table["cosine"], shown, atol=6e-4)


def test_the_selection_is_what_the_lasso_holds_nearest_first(explorer):
    inside = [0, 3, explorer.queries + 2, explorer.queries + 9]
    explorer.canvas.chosen = inside
    table = explorer.selection
    assert sorted(table.index) == inside
    assert table.index[0] == explorer.query.value  # like nothing so much as itself
    assert table["cosine"].is_monotonic_decreasing
    explorer.canvas.chosen = []
    assert explorer.selection.empty


def upload(explorer, name, content):
    """As the browser does."""
    file = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    explorer.upload.value = (file | {"last_modified": datetime.now()},)


def test_a_picture_of_ones_own_is_a_query_without_a_camera(explorer):
    first = explorer.listed.tolist()
    picture = explorer.records[explorer.queries + 5].path
    explorer.embedding.value = False
    upload(explorer, "mine.png", picture.read_bytes())
    assert explorer.problem.value == "mine.png"
    assert explorer.own.value and "own picture" in explorer.asked.value
    assert "AP" not in explorer.asked.value and "mAP" in explorer.accuracy.value
    assert explorer.records[explorer.listed[0]].path == picture
    assert explorer.buttons[0].description.strip() == "1.000"  # neither right nor wrong
    assert explorer.canvas.framed[-1] is None
    assert explorer.selection["cosine"].iloc[0] == pytest.approx(1, abs=1e-5)
    expected = embed(explorer.rankings.model, [picture])
    _, gallery = explorer.rankings.retrieval[False].select()
    nearest = explorer.queries + np.argsort(-(gallery @ expected[0]))[: explorers.SHOWN]
    assert set(explorer.listed) == set(nearest)
    before = explorer.explained.value
    explorer.choose(3)
    assert explorer.explained.value != before
    explorer.rerank.value = True
    assert len(explorer.listed) == explorers.SHOWN
    explorer.rerank.value = False
    explorer.embedding.value = True
    explorer.query.value = 2  # goes back
    assert not explorer.own.value and "person" in explorer.asked.value
    explorer.query.value = 0
    assert explorer.listed.tolist() == first
    explorer.own.value = True
    assert "own picture" in explorer.asked.value


def test_a_second_picture_takes_the_place_of_the_first(explorer):
    for place in (3, 12):
        picture = explorer.records[explorer.queries + place].path
        explorer.embedding.value = False
        upload(explorer, picture.name, picture.read_bytes())
        assert explorer.records[explorer.listed[0]].path == picture


def test_a_picture_that_is_dropped_on_a_plane_is_a_query(explorer):
    picture = explorer.records[explorer.queries + 5].path
    explorer.embedding.value = False
    drop = explorer.canvas._handle_custom_msg  # as the browser's message calls it
    drop({"dropped": "mine.png"}, [memoryview(picture.read_bytes())])
    assert explorer.problem.value == "mine.png" and explorer.own.value
    assert explorer.records[explorer.listed[0]].path == picture
    drop({"dropped": "large.png"}, [])
    assert explorer.problem.value == "large.png: expected at most 10 MB, found more"
    assert explorer.own.value, "the picture before stays"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"cut off"])
def test_a_file_that_is_no_picture_is_named_and_all_stays(explorer, content):
    shown = pictures(explorer), explorer.asked.value, explorer.explained.value
    upload(explorer, "holiday.png", content)
    assert explorer.problem.value.startswith("holiday.png: expected an image, found")
    assert str(explorer.folder.name) not in explorer.problem.value
    assert shown == (pictures(explorer), explorer.asked.value, explorer.explained.value)
    assert explorer.own.disabled and not explorer.own.value
    picture = explorer.records[explorer.queries].path
    upload(explorer, "good.png", picture.read_bytes())
    assert explorer.problem.value == "good.png" and explorer.own.value
    asked = explorer.asked.value
    upload(explorer, "holiday.png", content)
    assert explorer.asked.value == asked and explorer.own.value


def test_a_picture_of_ones_own_has_a_probability_where_neither_side_has_a_camera(rankings):
    points = np.zeros((len(rankings.query.ids) + len(rankings.gallery.ids), 2))
    both = dict.fromkeys((True, False), Calibration(30.0, -29.0))
    calibrated = explorers.Explorer(rankings, {"all": points}, both)
    calibrated.ask("mine.png", calibrated.records[-1].path.read_bytes())
    assert "same:" not in calibrated.explained.value
    calibrated.embedding.value = False
    assert "same:" in calibrated.explained.value


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
def test_the_script_parses():
    command = ["node", "--check", "--input-type=module", "-"]
    script = explorers.Path(explorers.__file__).with_name("plane.js").read_text()
    result = subprocess.run(command, input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
