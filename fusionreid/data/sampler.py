"""Batches of P identities x K images, which hard mining needs (Sec. IV.B: 8 x 16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class IdentityBatches:
    """Batches of exactly P distinct identities with K images each, the images of an identity side by side.

    An epoch: the images of each identity are shuffled and cut into groups of K. An identity with fewer than K
    images gives one group, its images and as many drawn again as are missing; what is left over of a larger one
    waits for another epoch's shuffle. Each batch takes a group of each of P identities drawn at random from those
    that have groups left, until fewer than P have. So an epoch is at most sum(max(1, n // K)) // P batches and
    usually one to a few tenths less, as identities with many images remain alone at the end: `len()` is that of
    the epoch set, and differs by some batches from epoch to epoch.

    The batches depend on (seed, epoch) only. With `world_size` processes each is given its share, P x K / world_size
    indices, of every batch; the shares side by side, by rank, are the batch of one process.

    Args:
        identities: of each image, in the order of the records; any integers.
        num_identities: P.
        num_images: K.

    Raises:
        ValueError: fewer than P identities; P x K not a multiple of `world_size`; rank outside it.
    """

    def __init__(
        self,
        identities: Sequence[int],
        num_identities: int = 8,
        num_images: int = 16,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        if num_identities < 1 or num_images < 1:
            raise ValueError(f"num_identities={num_identities} x num_images={num_images}; each is at least 1")
        if world_size < 1 or not 0 <= rank < world_size or num_identities * num_images % world_size:
            raise ValueError(
                f"rank={rank} of world_size={world_size}; expected 0 <= rank < world_size and a batch of "
                f"{num_identities} x {num_images} images that world_size divides"
            )
        identities = np.asarray(identities)
        distinct, inverse = np.unique(identities, return_inverse=True)
        if len(distinct) < num_identities:
            raise ValueError(
                f"num_identities={num_identities}, but the images show {len(distinct)} "
                f"{'identity' if len(distinct) == 1 else 'identities'}; a batch needs {num_identities} "
                "distinct ones"
            )
        order = np.argsort(inverse, kind="stable")
        self._images = np.split(order, np.cumsum(np.bincount(inverse))[:-1])  # one array of indices an identity
        self.num_identities, self.num_images = num_identities, num_images
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._epoch, self._batches = 0, None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches are given next."""
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, None

    def __len__(self) -> int:
        return len(self._epoch_batches())

    def __iter__(self) -> Iterator[list[int]]:
        share = self.num_identities * self.num_images // self.world_size
        for batch in self._epoch_batches():
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()

    def _epoch_batches(self) -> np.ndarray:
        """All batches of the epoch, (batches, P x K) indices."""
        if self._batches is None:
            random = np.random.default_rng((self.seed, self._epoch))
            groups = [self._groups(images, random) for images in self._images]
            left = np.array([len(group) for group in groups])
            available = np.arange(len(groups))
            batches = []
            while len(available) >= self.num_identities:
                chosen = random.choice(available, self.num_identities, replace=False)
                left[chosen] -= 1
                batches.append(np.concatenate([groups[identity][left[identity]] for identity in chosen]))
                available = available[left[available] > 0]
            self._batches = np.stack(batches)
        return self._batches

    def _groups(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The shuffled images of one identity, (groups, K)."""
        images = random.permutation(images)
        if len(images) < self.num_images:
            images = np.concatenate([images, random.choice(images, self.num_images - len(images))])
        groups = len(images) // self.num_images
        return images[: groups * self.num_images].reshape(groups, self.num_images)
