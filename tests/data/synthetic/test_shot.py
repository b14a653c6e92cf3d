"""One picture: what stands before the person."""

from __future__ import annotations

import numpy as np

from fusionreid.data.synthetic import scenes, shot


def test_what_hides_the_person_is_not_in_the_mask():
    rng = np.random.default_rng(0)
    camera = scenes.cameras(0)[0]
    for _ in range(8):
        image = np.zeros((64, 32, 3))
        name, inside = shot.put_in_front(image, rng, camera)
        assert name in ("pole", "wall", "hedge")
        np.testing.assert_array_equal(inside, image.any(axis=2))
