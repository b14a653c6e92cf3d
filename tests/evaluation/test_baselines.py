"""Plain colours against a slow loop, chance."""

import numpy as np
import pytest

from fusionreid.data import Dataset
from fusionreid.evaluation.baselines import COLOURS, colour_bands, plain_features

SIZE = (64, 32)


@pytest.mark.parametrize("per_camera", [True, False])
@pytest.mark.parametrize("middle", [True, False])
def test_colour_bands_are_the_slow_loop(middle, per_camera):
    images = np.random.default_rng(0).integers(
        0, 256, (3, 13, 9, 3), dtype=np.uint8
    )  # the last row is in no band
    cameras = np.array([1, 0, 1])
    vectors = colour_bands(images, cameras, bands=3, bins=2, middle=middle, per_camera=per_camera)
    columns = range(3, 6) if middle else range(9)
    for n in range(3):
        of = images[cameras == cameras[n]][:, :12, columns].astype(np.float64)
        threshold = of.mean(axis=(0, 1, 2)) if per_camera else 128
        counts = np.zeros((3, 2, 2, 2))
        for y in range(12):
            for x in columns:
                red, green, blue = (images[n, y, x] >= threshold).astype(int)
                counts[y // 4, red, green, blue] += 1
        expected = np.sqrt(counts.ravel())
        assert np.allclose(vectors[n], expected / np.linalg.norm(expected), atol=1e-6)


def test_normalised_colours_forget_the_light_of_a_camera():
    people = np.random.default_rng(0).integers(0, 120, (4, 16, 9, 3), dtype=np.uint8)
    images, cameras = np.concatenate([people, 2 * people + 10]), np.repeat([0, 1], 4)
    likeness = {}
    for per_camera in (True, False):
        vectors = colour_bands(images, cameras, bands=4, per_camera=per_camera)
        likeness[per_camera] = (vectors[:4] * vectors[4:]).sum(axis=1)
    assert likeness[True].min() > 0.999 and likeness[False].max() < 0.8


def test_the_best_colours_find_coloured_people_and_chance_does_not(tiny_dataset, tmp_path):
    retrieval = plain_features(tiny_dataset, SIZE, tmp_path)
    scores = {name: retrieval.rank(name).mAP for name in retrieval.query_features}
    assert list(scores) == ["chance", *COLOURS]
    assert max(scores[name] for name in COLOURS) > 0.6 > scores["chance"]


def test_chance_is_the_mean_of_random_orders(tiny_dataset, tmp_path):
    """Of G images R are matches: the mean precision is (H_G + (G - H_G) (R - 1) / (G - 1)) / G."""
    query, gallery = tiny_dataset.query * 100, tiny_dataset.gallery
    dataset = Dataset("synthetic", "tiny", tiny_dataset.root, tiny_dataset.train, query, gallery)
    found = plain_features(dataset, (8, 4), tmp_path).rank("chance").mAP
    size, matches = len(gallery) - 1, 5  # six cameras, and the query's own is left out
    harmonic = (1 / np.arange(1, size + 1)).sum()
    assert found == pytest.approx(
        (harmonic + (size - harmonic) * (matches - 1) / (size - 1)) / size, abs=0.02
    )
