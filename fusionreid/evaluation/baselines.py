"""What training has to beat: chance and plain colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data import Dataset, ImageCache, Record
from .embedding import normalised
from .evaluate import Retrieval
from .ranking import Labels

COLOURS = {  # what `colour_bands` is told, from the weakest
    "colour, whole frame": {"bands": 1, "middle": False, "per_camera": False},
    "colour, middle third, by camera": {"bands": 1},
    "colour, four bands, by camera": {"bands": 4},
    "colour, eight bands, by camera": {"bands": 8},
}


def colour_bands(
    images: np.ndarray,
    cameras: np.ndarray,
    *,
    bands: int,
    bins: int = 4,
    middle: bool = True,
    per_camera: bool = True,
) -> np.ndarray:
    """Colour histograms of horizontal bands, L2-normalised: (N, bands * bins^3).

    They are square roots of counts, so that their distances are Hellinger's.

    Args:
        images: (N, H, W, 3) uint8.
        cameras: (N,).
        bins: of each channel.
        middle: whether only the middle third of the width counts, where the person is.
        per_camera: whether the bins span two deviations around each channel's mean in the camera,
            in place of 0 to 255.
    """
    height = images.shape[1] // bands * bands
    third = images.shape[2] // 3 if middle else 0
    columns = slice(third, images.shape[2] - third)
    band = np.arange(height)[:, None] // (height // bands)  # of each row of pixels
    counts = np.zeros((len(images), bands * bins**3), np.float32)
    low, high = 0.0, 256.0
    for camera in np.unique(cameras):
        of_camera = np.flatnonzero(cameras == camera)
        if per_camera:
            low, high = _range(images[index, :height, columns] for index in of_camera)
        for index in of_camera:  # one by one: a gallery at the paper's size is larger than memory
            levels = (images[index, :height, columns] - low) / (high - low) * bins
            levels = np.clip(levels, 0, bins - 1).astype(int)
            bin_of_pixel = levels @ [bins**2, bins, 1] + band * bins**3
            counts[index] = np.bincount(bin_of_pixel.ravel(), minlength=counts.shape[1])
    return normalised(np.sqrt(counts))


def _range(crops) -> tuple[np.ndarray, np.ndarray]:
    """Two deviations below and above the mean of each channel: (3,) and (3,)."""
    means = []
    squares = []
    for crop in crops:
        crop = crop.astype(np.float32)
        means.append(crop.mean(axis=(0, 1)))
        squares.append(np.square(crop).mean(axis=(0, 1)))
    mean = np.mean(means, axis=0)
    deviation = np.sqrt(np.mean(squares, axis=0) - mean**2)
    return mean - 2 * deviation, mean + 2 * deviation


def plain_features(
    dataset: Dataset, image_size: tuple[int, int], cache_directory: str | Path
) -> Retrieval:
    """Features that have learnt nothing: "chance", random vectors, and each of `COLOURS`."""
    random = np.random.default_rng(0)

    def features(records: Sequence[Record]) -> dict[str, np.ndarray]:
        images = ImageCache(records, image_size, cache_directory, progress=False).images
        by_name = {"chance": random.standard_normal((len(records), 16), np.float32)}
        for name, options in COLOURS.items():
            by_name[name] = colour_bands(images, Labels.of(records).cameras, **options)
        return by_name

    return Retrieval.of(dataset, features)
