"""The data: readers of the re-identification sets, P x K batches, the decoded cache, augmentation on batches."""

from __future__ import annotations

from .augment import Augment, normalise
from .cache import ImageCache, load_images, prefetch
from .datasets import Dataset, Record, open_dataset
from .sampler import IdentityBatches

__all__ = [
    "Augment",
    "Dataset",
    "IdentityBatches",
    "ImageCache",
    "Record",
    "load_images",
    "normalise",
    "open_dataset",
    "prefetch",
]
