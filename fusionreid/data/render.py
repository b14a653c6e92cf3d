"""A triangle rasteriser with a depth buffer, in numpy: every triangle of one picture at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter


class Fragments(NamedTuple):
    """What is seen in each covered pixel.

    Attributes:
        pixel: (N,) indices into the flattened picture, ascending.
        face: (N,) the nearest triangle.
        barycentric: (N, 3) perspective-correct weights of its corners.
        depth: (N,) distance along the optical axis, metres.
    """

    pixel: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray

    def interpolate(self, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
        """Values (V, C) of the vertices at the fragments: (N, C)."""
        corners = faces[self.face]
        return sum(values[corners[:, k]] * self.barycentric[:, k, None] for k in range(3))


def rasterise(points: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Fragments:
    """The triangles' nearest fragments.

    Args:
        points: (V, 2) x, y in pixels; pixel (row, column) has its centre at (column + 0.5, row + 0.5).
        depth: (V,) in front of the camera, metres; triangles with a corner nearer than 0.1 are left out.
        faces: (F, 3); both sides are drawn.
        size: height, width.
    """
    height, width = size
    faces = faces[(depth[faces] > 0.1).all(1)]
    kept = np.arange(len(faces)) if len(faces) else np.zeros(0, int)
    corners = points[faces].astype(np.float64)  # (F, 3, 2)
    low = np.maximum(np.ceil(corners.min(1) - 0.5), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(1) - 0.5), [width - 1, height - 1]).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    (x0, y0), (x1, y1), (x2, y2) = (corners[:, k].T for k in range(3))
    area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
    count = extent[:, 0] * extent[:, 1] * (np.abs(area) > 1e-9)
    used = np.flatnonzero(count)
    count = count[used]
    # One row a candidate: a triangle and a pixel of its bounding box.
    triangle = np.repeat(used, count)
    offset = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
    column = low[triangle, 0] + offset % extent[triangle, 0]
    row = low[triangle, 1] + offset // extent[triangle, 0]
    # Barycentric weights are affine in the pixel: w = a x + b y + c.
    inverse = 1 / np.where(np.abs(area) > 1e-9, area, 1)
    a1, b1 = (y2 - y0) * inverse, (x0 - x2) * inverse
    a2, b2 = (y0 - y1) * inverse, (x1 - x0) * inverse
    dx, dy = column + 0.5 - x0[triangle], row + 0.5 - y0[triangle]
    w1 = a1[triangle] * dx + b1[triangle] * dy
    w2 = a2[triangle] * dx + b2[triangle] * dy
    weights = np.stack([1 - w1 - w2, w1, w2], 1)
    # A shared edge is computed twice; the tolerance keeps it from being missed by both sides.
    inside = (weights > -1e-6).all(1)
    triangle, weights = triangle[inside], weights[inside]
    pixel = row[inside] * width + column[inside]
    weights = weights / depth[faces[triangle]]
    nearness = weights.sum(1)
    order = np.lexsort((nearness, pixel))  # the last of each pixel's run is the nearest
    last = order[np.flatnonzero(np.append(np.diff(pixel[order]) > 0, True))] if len(order) else order
    nearness = nearness[last, None]
    return Fragments(pixel[last], kept[triangle[last]], (weights[last] / nearness).astype(np.float32),
                     (1 / nearness[:, 0]).astype(np.float32))


def blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur of a float array (H, W), by PIL in 32-bit floats' stead: 8 bits would show bands."""
    if radius <= 0.05:
        return image
    reach = int(np.ceil(2.5 * radius))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        pad = [(0, 0)] * image.ndim
        pad[axis] = (reach, reach)
        padded = np.pad(image, pad, mode="edge")
        n = image.shape[axis]
        image = sum(t * np.take(padded, range(i, i + n), axis) for i, t in enumerate(taps))
    return image


def halve(image: np.ndarray, factor: int = 2) -> np.ndarray:
    """Box filter: (H, W, C) -> (H / factor, W / factor, C)."""
    height, width, channels = image.shape
    blocks = image.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean((1, 3))
