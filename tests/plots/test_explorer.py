"""The live panels of notebook 13 follow their widgets and the lasso."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusionreid import PAPER, build_model
from fusionreid.config import PROFILES
from fusionreid.evaluation.verification import Calibration
from fusionreid.plots.browse import Rankings, Switches

explorers = pytest.importorskip("fusionreid.plots.explorer")  # ipywidgets and anywidget


@pytest.fixture(scope="module")
def rankings(tiny_dataset, tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(PROFILES["smoke"].scale(PAPER), num_classes=4, num_cameras=6).eval()
    *people, last = tiny_dataset.gallery
    dataset = replace(tiny_dataset, gallery=[*people, last._replace(identity=0)])  # a distractor
    return Rankings(model, dataset, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def explorer(rankings):
    count = len(rankings.dataset.query) + len(rankings.dataset.gallery)
    points = np.random.default_rng(0).random((3, count, 2))
    points[:, -1] = np.nan  # left out of the planes
    return explorers.Explorer(rankings, dict(zip(("cnn", "transformer", "all"), points)))


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
        assert len(points) == len(plane["neighbours"]) == len(records)
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
    assert list(explorer.colour.options) == [("identity", "identity"), ("camera", "camera")]
    assert explorer.legend.value == "one colour a person, 5 in all" or "distractor"
    explorer.colour.value = "camera"
    cameras = [record.camera for record in explorer.records]
    pairs = set(zip(cameras, explorer.canvas.colours, strict=True))
    assert len(pairs) == len(set(cameras)) == len(set(explorer.canvas.colours))
    for camera, colour in pairs:
        assert colour in explorer.legend.value and f"> {camera + 1}" in explorer.legend.value


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
def test_the_script_parses():
    command = ["node", "--check", "--input-type=module", "-"]
    script = explorers.Path(explorers.__file__).with_name("plane.js").read_text()
    result = subprocess.run(command, input=script, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
