"""The rasteriser is the slow loop over pixels and triangles; blur and halving."""

from __future__ import annotations

import numpy as np

from fusionreid.data.synthetic.render import blur, coverage, halve, rasterise


def slow_rasterise(points, depth, faces, size):
    """Pixel by pixel, triangle by triangle: the nearest triangle, or -1."""
    result, nearest = np.full(size, -1), np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            p = np.array([column + 0.5, row + 0.5])
            for index, (i, j, k) in enumerate(faces):
                matrix = np.array([points[j] - points[i], points[k] - points[i]]).T
                if abs(np.linalg.det(matrix)) < 1e-9:
                    continue
                a, b = np.linalg.solve(matrix, p - points[i])
                if min(a, b, 1 - a - b) < 0:
                    continue
                near = (1 - a - b) / depth[i] + a / depth[j] + b / depth[k]
                if near > nearest[row, column]:
                    nearest[row, column], result[row, column] = near, index
    return result, nearest


def test_rasterise_is_the_slow_loop():
    rng = np.random.default_rng(0)
    points, depth = rng.uniform(-4, 20, (30, 2)), rng.uniform(1, 5, 30)
    faces = rng.integers(0, 30, (25, 3))
    size = (12, 16)
    expected, nearest = slow_rasterise(points, depth, faces, size)
    seen = rasterise(points, depth, faces, size)
    got = np.full(size, -1)
    got.reshape(-1)[seen.pixel] = seen.face
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose(seen.depth, 1 / nearest[expected >= 0], rtol=1e-5)
    np.testing.assert_allclose(seen.barycentric.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(coverage(points, depth, faces, size), expected >= 0)


def test_a_mesh_has_no_holes():
    x, y = np.meshgrid(np.linspace(-0.3, 32.3, 23), np.linspace(-0.3, 64.3, 41))
    points = np.stack([x.ravel(), y.ravel()], 1) + np.random.default_rng(1).normal(
        0, 0.1, (x.size, 2)
    )
    points = points.clip([-0.3, -0.3], None)
    i = (np.arange(40)[:, None] * 23 + np.arange(22)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + 23], 1), np.stack([i + 1, i + 24, i + 23], 1)])
    mask = coverage(points, np.full(len(points), 2.0), faces, (64, 32))
    assert mask[:63, :31].all()


def test_an_empty_picture():
    seen = rasterise(
        np.array([[50.0, 50], [60, 50], [50, 60]]), np.ones(3), np.array([[0, 1, 2]]), (8, 8)
    )
    assert len(seen.pixel) == 0


def test_blur_and_halve():
    image = np.random.default_rng(0).random((8, 6, 3))
    np.testing.assert_allclose(halve(image), image.reshape(4, 2, 3, 2, 3).mean((1, 3)))
    np.testing.assert_allclose(blur(np.full((9, 7), 0.3), 1.5), 0.3)
    assert blur(image, 0) is image
