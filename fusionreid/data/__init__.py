"""The data: readers of the sets, P x K batches, the decoded cache, augmentation."""

from .augment import Augment, normalise
from .cache import ImageCache, load_images, prefetch
from .datasets import Dataset, Record, open_dataset
from .sampler import PKSampler

__all__ = [
    "Augment",
    "Dataset",
    "ImageCache",
    "PKSampler",
    "Record",
    "load_images",
    "normalise",
    "open_dataset",
    "prefetch",
]
