"""What people wear: bags and held things are meshes of their own; skirts hang around the legs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fusionreid.data.synthetic import body, garments
from fusionreid.data.synthetic.people import WARDROBE, draw


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("anny")
    return body.BodyModel()


def dressed(model, **changes):
    person = replace(draw(0, 3), **changes)
    return person, garments.dress(person, model.template, *model.of(person))


@pytest.mark.parametrize("bag", WARDROBE["bags"])
def test_a_bag_is_a_mesh_of_its_own(model, bag):
    _, figure = dressed(model, bag=bag, held="nothing")
    mesh = figure.mesh
    assert (garments.BAG in mesh.layer) == (bag != "none")
    assert mesh.faces.max() < len(mesh.vertices) == len(mesh.weights) == len(mesh.attributes)
    assert len(mesh.faces) == len(mesh.layer)


@pytest.mark.parametrize("held", WARDROBE["held"])
def test_what_is_held(model, held):
    _, figure = dressed(model, bag="none", held=held)
    assert (garments.HELD in figure.mesh.layer) == (held != "nothing")


@pytest.mark.parametrize("bottom", ["skirt", "long skirt"])
def test_a_skirt_hangs_around_the_legs(model, bottom):
    person, figure = dressed(model, bottom=bottom, length=1.0, top="t-shirt")
    cloth = garments.tube(person, figure.mesh, figure.joints)
    knee = figure.joints[body.INDEX["shin.L"], 2]
    assert cloth.vertices[:, 2].min() == pytest.approx(knee, abs=1e-3)
    assert cloth.faces.max() < len(cloth.vertices) == len(cloth.attributes)


def test_loose_trousers_are_wider(model):
    widths = []
    for looseness in (0.2, 2.0):
        _, figure = dressed(model, bottom="trousers", length=1.9, looseness=looseness, bag="none")
        x, _, z = figure.mesh.vertices.T
        shin = np.abs(z - figure.joints[body.INDEX["foot.L"], 2] - 0.1) < 0.03
        widths.append(np.ptp(x[shin & (x > 0)]))
    assert widths[1] > widths[0] + 0.02
