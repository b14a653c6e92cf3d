"""What training has to beat: chance and plain colours; and whether the background names people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..data import Dataset, ImageCache, Record
from .embedding import normalised
from .evaluate import Retrieval
from .ranking import Labels, Ranking

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
    """Colour histograms of horizontal bands: uint8 (N, H, W, 3) and cameras (N,) to (N, bands * bins^3), L2-normalised.

    With square roots the distances are Hellinger's. With `middle` only the middle third of the width counts, where the
    person is; with `per_camera` the bins span two deviations around each channel's mean in each camera, not 0 to 255.
    """
    third = images.shape[2] // 3 if middle else 0
    height, columns = images.shape[1] // bands * bands, slice(third, images.shape[2] - third)
    first = np.arange(height)[:, None] // (height // bands) * bins**3  # bin of each row's band
    counts, low, high = np.zeros((len(images), bands * bins**3), np.float32), 0.0, 256.0
    for camera in np.unique(cameras):
        of = np.flatnonzero(cameras == camera)
        if per_camera:
            crops = (images[place, :height, columns].astype(np.float32) for place in of)
            mean, square = np.mean(
                [(crop.mean(axis=(0, 1)), np.square(crop).mean(axis=(0, 1))) for crop in crops], 0
            )
            deviation = np.sqrt(square - mean**2)
            low, high = mean - 2 * deviation, mean + 2 * deviation
        for place in of:  # one by one: a gallery at the paper's size is larger than memory
            levels = np.clip(
                (images[place, :height, columns] - low) / (high - low) * bins, 0, bins - 1
            ).astype(int)
            bin_of = levels @ [bins**2, bins, 1] + first
            counts[place] = np.bincount(bin_of.ravel(), minlength=counts.shape[1])
    return normalised(np.sqrt(counts))


def plain_features(
    dataset: Dataset, image_size: tuple[int, int], cache_directory: str | Path
) -> Retrieval:
    """Query and gallery by features that have learnt nothing: "chance", random vectors, and each of `COLOURS`."""
    random = np.random.default_rng(0)

    def features(records: Sequence[Record], cameras: np.ndarray) -> dict[str, np.ndarray]:
        images = ImageCache(records, image_size, cache_directory, progress=False).images
        by_name = {"chance": random.standard_normal((len(records), 16), np.float32)}
        for name, options in COLOURS.items():
            by_name[name] = colour_bands(images, cameras, **options)
        return by_name

    query, gallery = Labels.of(dataset.query), Labels.of(dataset.gallery)
    query_features = features(dataset.query, query.cameras)
    gallery_features = features(dataset.gallery, gallery.cameras)
    return Retrieval(query_features, gallery_features, query, gallery)


def rank_by_colour(
    dataset: Dataset, image_size: tuple[int, int], cache_directory: str | Path
) -> Ranking:
    """The gallery ranked by those of `COLOURS` that find most."""
    retrieval = plain_features(dataset, image_size, cache_directory)
    return max((retrieval.rank(name) for name in COLOURS), key=lambda ranking: ranking.mAP)
