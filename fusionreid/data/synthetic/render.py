"""A triangle rasteriser with a depth buffer, in numpy: every triangle of one picture at once."""

from typing import NamedTuple

import numpy as np


class Fragments(NamedTuple):
    """What is seen in each covered pixel."""

    pixel: np.ndarray  # (N,) indices into the flattened picture, ascending
    face: np.ndarray  # (N,) the nearest triangle
    barycentric: np.ndarray  # (N, 3) perspective-correct weights of its corners
    depth: np.ndarray  # (N,) distance along the optical axis, metres

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Values (V, C) of the vertices at the fragments: (N, C)."""
        corners = faces[self.face]
        weights = self.barycentric[:, :, None]
        return sum(values[corners[:, corner]] * weights[:, corner] for corner in range(3))


class _Candidates(NamedTuple):
    """Triangles and the pixels whose centres lie in them: arrays (N,)."""

    triangle: np.ndarray
    pixel: np.ndarray
    weight1: np.ndarray  # barycentric weights of corners 1 and 2
    weight2: np.ndarray


def _span(values, limit):
    """The first pixel whose centre lies between each triangle's corners, and how many do."""
    first = np.ceil(values.min(0) - 0.5)
    last = np.floor(values.max(0) - 0.5)
    first = np.maximum(first, 0).astype(np.int64)
    last = np.minimum(last, limit - 1).astype(np.int64)
    return first, last - first + 1


def _candidates(points, depth, faces, size) -> _Candidates:
    height, width = size
    x = points[faces, 0].T  # (3, F)
    y = points[faces, 1].T
    left, across = _span(x, width)
    top, down = _span(y, height)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    is_seen = (depth[faces].min(1) > 0.1) & (np.abs(area) > 1e-9)
    # Most triangles fall between the pixels' centres, and are left out here.
    used = np.flatnonzero(is_seen & (across > 0) & (down > 0))
    x = x[:, used]
    y = y[:, used]
    left = left[used]
    top = top[used]
    across = across[used]
    down = down[used]
    inverse = 1 / area[used]
    # Barycentric weights are affine in the pixel: w = a dx + b dy, from corner 0.
    a1 = (y[2] - y[0]) * inverse
    b1 = (x[0] - x[2]) * inverse
    a2 = (y[0] - y[1]) * inverse
    b2 = (x[1] - x[0]) * inverse
    count = across * down
    # One row a candidate: a triangle and a pixel of its bounding box.
    triangle = np.repeat(np.arange(len(used)), count)
    first = np.repeat(np.cumsum(count) - count, count)
    offset = np.arange(len(triangle)) - first
    row = offset // across[triangle]
    column = left[triangle] + offset - row * across[triangle]
    row += top[triangle]
    dx = column + 0.5 - x[0][triangle]
    dy = row + 0.5 - y[0][triangle]
    weight1 = a1[triangle] * dx + b1[triangle] * dy
    weight2 = a2[triangle] * dx + b2[triangle] * dy
    # A shared edge is computed twice; the tolerance keeps it from being missed by both sides.
    is_inside = (weight1 > -1e-6) & (weight2 > -1e-6) & (weight1 + weight2 < 1 + 1e-6)
    inside = np.flatnonzero(is_inside)
    pixel = row[inside] * width + column[inside]
    return _Candidates(used[triangle[inside]], pixel, weight1[inside], weight2[inside])


def coverage(
    points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Which pixels any triangle covers: (H, W) float32 of 0 and 1. Arguments as of `rasterise`."""
    mask = np.zeros(size[0] * size[1], np.float32)
    mask[_candidates(points, depth, faces, size).pixel] = 1
    return mask.reshape(size)


def rasterise(
    points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> Fragments:
    """The nearest fragments of triangles, both sides of them, in a picture of (height, width).

    `points` (V, 2) are x, y in pixels; pixel (row, column) has its centre at (column + 0.5,
    row + 0.5). `depth` (V,) is in front of the camera, metres. `faces` (F, 3) are the triangles;
    those with a corner nearer than 0.1 are left out.
    """
    triangle, pixel, weight1, weight2 = _candidates(points, depth, faces, size)
    weights = np.stack([1 - weight1 - weight2, weight1, weight2], 1) / depth[faces[triangle]]
    nearness = weights[:, 0] + weights[:, 1] + weights[:, 2]
    order = np.argsort(nearness, kind="stable")
    buffer = np.full(size[0] * size[1], -1, np.int64)
    buffer[pixel[order]] = order  # of several fragments of a pixel, the last written is the nearest
    seen = np.flatnonzero(buffer >= 0)
    last = buffer[seen]
    nearness = nearness[last]
    barycentric = weights[last] / nearness[:, None]
    return Fragments(
        pixel=seen,
        face=triangle[last],
        barycentric=barycentric.astype(np.float32),
        depth=(1 / nearness).astype(np.float32),
    )


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of a float array (H, W) or (H, W, C), edges repeated; radius in pixels."""
    if radius <= 0.05:
        return image
    reach = int(np.ceil(2.5 * radius))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    taps /= taps.sum()
    margin = [(reach, reach)] + [(0, 0)] * (image.ndim - 1)
    for _ in range(2):  # along the rows' axis, then with the two axes exchanged
        padded = np.pad(image, margin, mode="edge")
        total = sum(tap * padded[start : start + len(image)] for start, tap in enumerate(taps))
        image = total.swapaxes(0, 1)
    return image


def halve(image: np.ndarray) -> np.ndarray:
    """Box filter: (H, W, C) -> (H / 2, W / 2, C)."""
    upper = image[::2, ::2] + image[::2, 1::2]
    return (upper + image[1::2, ::2] + image[1::2, 1::2]) / 4
