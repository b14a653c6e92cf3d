"""Batches of P identities x K images, which hard mining needs (Sec. IV.B: 8 x 16)."""

from collections.abc import Iterator, Sequence

import numpy as np
from einops import rearrange


class PKSampler:
    """Batches of exactly P distinct identities with K images each, side by side.

    In an epoch the images of each identity are shuffled and cut into groups of K; a remainder waits
    for another epoch. An identity with fewer than K images gives one group: K images drawn with
    replacement. A batch takes one group of each of P identities, drawn at random from those that
    have groups left. The epoch ends when fewer than P are left, so its length, `len()`, differs a
    little from epoch to epoch. The batches depend on (seed, epoch) alone.

    With several processes each gets its share, P x K / world_size indices, of every batch, in the
    order of the ranks.

    Args:
        identities: of each image, in the order of the records, any integers.
        num_identities: P.
        num_images: K.

    Raises ValueError for fewer than P identities, a P x K that is not a multiple of `world_size`,
    or a rank that is not below it.
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
        batch_size = num_identities * num_images
        if not 0 <= rank < world_size or batch_size % world_size:
            raise ValueError(
                f"rank={rank} of world_size={world_size}; expected 0 <= rank < world_size and a "
                f"batch of {num_identities} x {num_images} that world_size divides"
            )
        distinct, labels = np.unique(identities, return_inverse=True)
        if len(distinct) < num_identities:
            raise ValueError(
                f"a batch of {num_identities} identities (TrainConfig.identities) "
                f"needs as many, but the training images are of {len(distinct)}"
            )
        # The indices of each identity's images.
        self._images = [np.flatnonzero(labels == label) for label in range(len(distinct))]
        self.num_identities = num_identities
        self.num_images = num_images
        self.seed = seed
        # This process's part of each batch.
        size = batch_size // world_size
        self._share = slice(rank * size, (rank + 1) * size)
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches are given next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self._batches():
            yield batch[self._share].tolist()

    def _batches(self) -> list[np.ndarray]:
        """All batches of the epoch, (P x K,) indices each."""
        random = np.random.default_rng((self.seed, self._epoch))
        groups = [self._groups(images, random) for images in self._images]
        left = np.array([len(group) for group in groups])
        batches = []
        while np.count_nonzero(left) >= self.num_identities:
            chosen = random.choice(np.flatnonzero(left), self.num_identities, replace=False)
            left[chosen] -= 1
            # An identity's groups are taken from the last one to the first.
            batches.append(np.concatenate([groups[label][left[label]] for label in chosen]))
        return batches

    def _groups(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The images of one identity, (groups, K) indices."""
        if len(images) < self.num_images:
            return random.choice(images, (1, self.num_images))  # with replacement
        whole = len(images) // self.num_images * self.num_images
        shuffled = random.permutation(images)[:whole]
        return rearrange(shuffled, "(groups images) -> groups images", images=self.num_images)
