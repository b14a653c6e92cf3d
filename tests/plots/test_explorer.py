"""The live panels of notebook 13 follow their widgets: the list holds what the lasso holds, and the plane shows it."""

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
from fusionreid.plots.browse import Rankings

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
    points = np.random.default_rng(0).random((count, 2))
    points[-1] = np.nan  # left out of the plane
    return explorers.Explorer(rankings, points)


def shown(explorer):
    """The addresses of the pictures in the list."""
    return [
        each.value.split('"')[3]
        for each in explorer.pictures
        if each.layout.visibility == "visible"
    ]


def test_what_the_plane_is_given_is_json_and_in_order(explorer):
    state, records = explorer.canvas.get_state(), explorer.records
    assert json.loads(json.dumps(state["points"], allow_nan=False))[-1] is None
    assert len(state["points"]) == len(state["captions"]) == len(state["hues"]) == len(records)
    assert state["queries"] == len(explorer.rankings.dataset.query)
    assert state["captions"][3] == f"person {records[3].identity}, camera {records[3].camera + 1}"
    assert state["captions"][-1] == f"distractor, camera {records[-1].camera + 1}"
    assert state["sheet"].startswith("data:image/jpeg;base64,")
    assert "export default" in explorer.canvas._esm


def test_the_list_holds_the_gallery_images_of_the_lasso_alone(explorer):
    queries, gallery = len(explorer.rankings.dataset.query), explorer.rankings.dataset.gallery
    whole = explorer.found.tolist()
    assert explorer.lassoed.value == f"all {len(gallery)} gallery images"
    explorer.canvas.chosen = [
        0,
        1,
        *(queries + place for place in (9, 17, 2)),
    ]  # queries lie in it too
    assert explorer.lassoed.value == f"<b>3</b> of {len(gallery)} gallery images"
    assert explorer.found.tolist() == [place for place in whole if place in (9, 17, 2)]
    assert shown(explorer) == [explorers.address(gallery[place].path) for place in explorer.found]
    assert explorer.canvas.framed == [*(queries + explorer.found).tolist(), explorer.query.value]
    explorer.query.value = 3  # the lasso stays
    assert set(explorer.found) <= {9, 17, 2} and explorer.canvas.framed[-1] == 3
    explorer.query.value = 0
    explorer.canvas.chosen = None
    assert explorer.found.tolist() == whole


def test_a_lasso_without_a_gallery_image_empties_the_list(explorer):
    for chosen in ([], [0, 2]):
        explorer.canvas.chosen = chosen
        assert not shown(explorer) and explorer.explained.value == "No image is left in the list."
    explorer.canvas.chosen = None
    assert shown(explorer)


def test_the_colour_follows_what_is_chosen(explorer):
    explorer.colour.value = "camera"
    cameras = [each.camera for each in explorer.records]
    pairs = set(zip(cameras, explorer.canvas.hues, strict=True))
    assert len(pairs) == len(set(cameras)) == len(set(explorer.canvas.hues))


@pytest.mark.skipif(shutil.which("node") is None, reason="missing: node")
def test_the_script_parses():
    command = ["node", "--check", "--input-type=module", "-"]
    text = explorers.Path(explorers.__file__).with_name("plane.js").read_text()
    result = subprocess.run(command, input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
