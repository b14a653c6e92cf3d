"""Batches of P identities x K images, which hard mining needs (Sec. IV.B: 8 x 16)."""

from collections.abc import Iterator, Sequence

import numpy as np


class PKSampler:
    """Batches of exactly P distinct identities with K images each. The images of an identity stand side by side.

    An epoch: the images of each identity are shuffled and cut into groups of K; a remainder waits for another epoch.
    An identity with fewer than K images gives one group: K images drawn with replacement. A batch takes one group of
    each of P identities, drawn at random from those that have groups left. The epoch ends when fewer than P are left,
    so its length, `len()`, differs a little from epoch to epoch. The batches depend on (seed, epoch) alone.

    With several processes each gets its share, P x K / world_size indices, of every batch, in the order of the ranks.
    `identities` are of each image, in the order of the records, any integers. Raises ValueError for fewer than P of
    them, a P x K that is not a multiple of `world_size`, or a rank outside it.
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
        if world_size < 1 or not 0 <= rank < world_size or num_identities * num_images % world_size:
            expected = f"0 <= rank < world_size and a batch of {num_identities} x {num_images} that world_size divides"
            raise ValueError(f"rank={rank} of world_size={world_size}; expected {expected}")
        distinct, index = np.unique(np.asarray(identities), return_inverse=True)
        if len(distinct) < num_identities:
            raise ValueError(
                f"num_identities={num_identities}; expected at most {len(distinct)}, those of the images"
            )
        order = np.argsort(index, kind="stable")
        self._images = np.split(
            order, np.cumsum(np.bincount(index))[:-1]
        )  # the images' indices of each identity
        self.num_identities, self.num_images = num_identities, num_images
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose batches are given next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._epoch_batches())

    def __iter__(self) -> Iterator[list[int]]:
        share = self.num_identities * self.num_images // self.world_size
        for batch in self._epoch_batches():
            yield batch[self.rank * share : (self.rank + 1) * share].tolist()

    def _epoch_batches(self) -> np.ndarray:
        """All batches of the epoch, (batches, P x K) indices."""
        random = np.random.default_rng((self.seed, self._epoch))
        groups = [self._groups(images, random) for images in self._images]
        left = np.array([len(group) for group in groups])
        batches = []
        while len(available := np.flatnonzero(left)) >= self.num_identities:
            chosen = random.choice(available, self.num_identities, replace=False)
            left[chosen] -= 1
            batches.append(
                np.concatenate([groups[identity][left[identity]] for identity in chosen])
            )
        return np.stack(batches)

    def _groups(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The images of one identity, (groups, K) indices."""
        if len(images) < self.num_images:
            return random.choice(images, (1, self.num_images))  # with replacement
        groups = len(images) // self.num_images
        return random.permutation(images)[: groups * self.num_images].reshape(
            groups, self.num_images
        )
