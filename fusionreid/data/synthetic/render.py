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
        return sum(values[corners[:, k]] * self.barycentric[:, k, None] for k in range(3))


def _candidates(points, depth, faces, size):
    """Triangles and the pixels whose centres they hold: triangle, pixel, and the weights of corners 1, 2."""
    height, width = size
    x, y = points[faces, 0].T, points[faces, 1].T  # (3, F)
    near = depth[faces].min(1)

    def span(values, limit):
        low = np.maximum(np.ceil(values.min(0) - 0.5), 0).astype(np.int64)
        high = np.minimum(np.floor(values.max(0) - 0.5), limit - 1).astype(np.int64)
        return low, high - low + 1

    (left, across), (top, down) = span(x, width), span(y, height)
    # Most triangles fall between the pixels' centres, and are done with here.
    used = np.flatnonzero((across > 0) & (down > 0) & (near > 0.1))
    x, y, left, across, top, down = (
        x[:, used],
        y[:, used],
        left[used],
        across[used],
        top[used],
        down[used],
    )
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    inverse = 1 / np.where(np.abs(area) > 1e-9, area, np.inf)
    # Barycentric weights are affine in the pixel: w = a dx + b dy, from corner 0.
    a1, b1 = (y[2] - y[0]) * inverse, (x[0] - x[2]) * inverse
    a2, b2 = (y[0] - y[1]) * inverse, (x[1] - x[0]) * inverse
    count = across * down * (np.abs(area) > 1e-9)
    # One row a candidate: a triangle and a pixel of its bounding box.
    triangle = np.repeat(np.arange(len(used)), count)
    offset = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    row = offset // across[triangle]
    column = left[triangle] + offset - row * across[triangle]
    row += top[triangle]
    dx, dy = column + 0.5 - x[0][triangle], row + 0.5 - y[0][triangle]
    w1 = a1[triangle] * dx + b1[triangle] * dy
    w2 = a2[triangle] * dx + b2[triangle] * dy
    # A shared edge is computed twice; the tolerance keeps it from being missed by both sides.
    inside = np.flatnonzero((w1 > -1e-6) & (w2 > -1e-6) & (w1 + w2 < 1 + 1e-6))
    return used[triangle[inside]], row[inside] * width + column[inside], w1[inside], w2[inside]


def coverage(
    points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Which pixels any triangle covers: (H, W) float32 of 0 and 1. Arguments as of `rasterise`."""
    mask = np.zeros(size[0] * size[1], np.float32)
    mask[_candidates(points, depth, faces, size)[1]] = 1
    return mask.reshape(size)


def rasterise(
    points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> Fragments:
    """The nearest fragments of the triangles `faces` (F, 3), both sides of them, in a picture of height, width.

    `points` (V, 2) are x, y in pixels; pixel (row, column) has its centre at (column + 0.5, row + 0.5). `depth` (V,) is
    in front of the camera, metres; triangles with a corner nearer than 0.1 are left out.
    """
    triangle, pixel, w1, w2 = _candidates(points, depth, faces, size)
    corners = faces[triangle]
    weights = np.stack([1 - w1 - w2, w1, w2], 1) / depth[corners]
    nearness = weights[:, 0] + weights[:, 1] + weights[:, 2]
    order = np.argsort(nearness, kind="stable")
    buffer = np.full(size[0] * size[1], -1, np.int64)
    buffer[pixel[order]] = order  # of several fragments of a pixel, the last written is the nearest
    seen = np.flatnonzero(buffer >= 0)
    last = buffer[seen]
    nearness = nearness[last, None]
    barycentric = (weights[last] / nearness).astype(np.float32)
    return Fragments(seen, triangle[last], barycentric, (1 / nearness[:, 0]).astype(np.float32))


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of a float array (H, W) or (H, W, C), edges repeated; radius in pixels."""
    if radius <= 0.05:
        return image
    reach = int(np.ceil(2.5 * radius))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    taps /= taps.sum()
    for _ in range(2):  # along the rows' axis, then with the two axes exchanged
        padded = np.pad(image, [(reach, reach)] + [(0, 0)] * (image.ndim - 1), mode="edge")
        image = sum(tap * padded[i : i + len(image)] for i, tap in enumerate(taps)).swapaxes(0, 1)
    return image


def halve(image: np.ndarray) -> np.ndarray:
    """Box filter: (H, W, C) -> (H / 2, W / 2, C)."""
    return sum(image[i::2, j::2] for i in range(2) for j in range(2)) / 4
