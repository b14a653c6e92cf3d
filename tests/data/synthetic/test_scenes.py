"""The cameras: the same for every size of a seed, exposed alike, with every wall."""

from __future__ import annotations

import numpy as np
import pytest

from fusionreid.data.synthetic import scenes


def grid(count=40):
    u, v = np.mgrid[-0.1 : 0.1 : count * 1j, -0.2 : 0.2 : count * 1j]
    return u.reshape(-1), v.reshape(-1)


def test_cameras_are_of_the_seed():
    first, again, other = scenes.cameras(0), scenes.cameras(0), scenes.cameras(1)
    assert len(first) == 6
    assert [camera.seed for camera in first] == [camera.seed for camera in again]
    assert [camera.seed for camera in first] != [camera.seed for camera in other]


def test_cameras_expose_their_streets_alike():
    light = []
    for camera in scenes.cameras(0):
        colours = [scenes.background(camera, *grid(), street)[0] for street in range(0, 60, 3)]
        light.append(float((np.mean(colours) * camera.gain).mean()))
    assert np.std(light) / np.mean(light) < 0.2
    assert np.mean(light) == pytest.approx(scenes.MEAN_LIGHT, rel=0.2)


@pytest.mark.parametrize("kind", scenes.WALLS)
def test_every_wall_has_colours(kind):
    camera = scenes.cameras(0)[0]
    camera.wall_kinds = (kind,)
    colour, on_ground, is_ground = scenes.background(camera, *grid(), 3.0)
    assert colour.shape == (1600, 3) and on_ground.shape == (1600, 2)
    assert np.isfinite(colour).all() and (colour >= 0).all()
    assert colour[~is_ground].std() > 0.005
