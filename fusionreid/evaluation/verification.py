"""The verification curve: are two images of one person? Pairs accepted below a distance, over all pairs scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch

BINS = 1 << 18
PIECE = 1 << 22  # distances binned at a time


@dataclass(frozen=True)
class Verification:
    """Receiver operating characteristic over the pairs of valid queries and the images they are scored on.

    A pair is accepted if its distance is below the threshold. The counts are exact; the thresholds stand on a grid of
    262,144 steps from 0 to the largest distance that there can be.

    Attributes:
        threshold: (T,) ascending, those at which a rate changes.
        false_positive_rate: (T,) accepted pairs of two people over all such pairs.
        true_positive_rate: (T,) accepted matches over all matches.
        num_positives, num_negatives: pairs of one person, of two.
    """

    threshold: np.ndarray = field(repr=False)
    false_positive_rate: np.ndarray = field(repr=False)
    true_positive_rate: np.ndarray = field(repr=False)
    num_positives: int
    num_negatives: int

    def tpr_at(self, fpr: float) -> float:
        """The largest true positive rate whose false positive rate is at most `fpr`, 0 to 1."""
        if not 0 <= fpr <= 1:
            raise ValueError(f"fpr={fpr}: expected 0 to 1")
        return float(self.true_positive_rate[np.searchsorted(self.false_positive_rate, fpr, "right") - 1])

    @property
    def auc(self) -> float:
        """Area under the curve; pairs of one grid step count one half, as ties do."""
        false, true = self.false_positive_rate, self.true_positive_rate
        return float((np.diff(false) * (true[1:] + true[:-1]) / 2).sum())

    @property
    def equal_error_rate(self) -> float:
        """Where as many matches are refused as others accepted: the mean of both rates at the nearest threshold."""
        refused = 1 - self.true_positive_rate
        at = np.abs(refused - self.false_positive_rate).argmin()
        return float((refused[at] + self.false_positive_rate[at]) / 2)


class VerificationCounts:
    """Counts distances on a grid, block by block, from several threads."""

    def __init__(self, bound: float, bins: int = BINS):
        self.step = max(bound, np.finfo(np.float32).tiny) * (1 + 1e-6) / bins
        self.positives, self.negatives = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
        self._lock = Lock()

    def add_negatives(self, block: torch.Tensor) -> None:
        """Counts a block; what is not a pair of two people is inf in it."""
        rows = max(1, PIECE // block.shape[1])
        self._add(self.negatives, sum(self._binned(part) for part in block.split(rows)))

    def add_positives(self, distance: np.ndarray) -> None:
        self._add(self.positives, self._binned(torch.from_numpy(distance)))

    def curve(self) -> Verification:
        counts = np.stack([self.negatives, self.positives])
        used = np.flatnonzero(counts.any(axis=0))
        total = counts.sum(axis=1)
        rates = np.hstack([np.zeros((2, 1)), counts[:, used].cumsum(axis=1)]) / np.maximum(total, 1)[:, None]
        return Verification(
            threshold=np.r_[0.0, (used + 1) * self.step],
            false_positive_rate=rates[0],
            true_positive_rate=rates[1],
            num_positives=int(total[1]),
            num_negatives=int(total[0]),
        )

    def _binned(self, distance: torch.Tensor) -> np.ndarray:
        bins = len(self.positives)
        index = (distance.double() / self.step).clamp_(0, bins).long().reshape(-1)
        return torch.bincount(index, minlength=bins + 1)[:bins].cpu().numpy()

    def _add(self, counts: np.ndarray, more: np.ndarray) -> None:
        with self._lock:
            counts += more
