"""The check of the background: one that names people is seen, one that does not is at chance."""

import numpy as np
import pytest

from fusionreid.data.background import edge_shortcut


def street(shortcut: bool):
    """240 images, two of each person by each camera; with a shortcut, the two have edges of one
    colour.
    """
    random = np.random.default_rng(1)
    identities, cameras = np.repeat(np.arange(40), 6), np.tile(np.repeat(np.arange(3), 2), 40)
    colours = (
        random.uniform(60, 200, (40, 3, 3))[identities, cameras]
        if shortcut
        else random.uniform(60, 200, (240, 3))
    )
    images = random.normal(128, 9, (240, 32, 16, 3))
    images[:, :, [0, -1]] += (colours - 128)[:, None, None]
    masks = np.zeros((240, 32, 16), bool)
    masks[:, 4:-4, 5:-5] = True
    return images.clip(0, 255).astype(np.uint8), masks, identities, cameras


def test_a_planted_shortcut_is_found():
    found = edge_shortcut(*street(shortcut=True))
    assert (
        found["accuracy"] > 0.5 > found["chance"] + 10 * found["standard error"]
        and found["images"] == 240
    )


def test_without_a_shortcut_the_edges_are_at_chance():
    found = edge_shortcut(*street(shortcut=False))
    assert found["chance"] == pytest.approx(1 / 79, abs=0.003), (
        "one of the 79 other images of the camera"
    )
    assert abs(found["accuracy"] - found["chance"]) < 3 * found["standard error"]


def test_people_who_stand_in_the_edge_are_left_out():
    images, masks, identities, cameras = street(shortcut=True)
    masks[: 6 * 20, 8, 0] = True
    found = edge_shortcut(images, masks, identities, cameras)
    assert found["images"] == 120
    masks[:] = True
    assert edge_shortcut(images, masks, identities, cameras)["images"] == 0
