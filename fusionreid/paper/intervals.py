"""How sure a difference between two rows is: its confidence interval over training seeds and test people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean difference and its confidence interval, in the unit of the values; NaN where nothing is known."""

    mean: float
    low: float
    high: float
    runs: int  # pairs of runs
    alike: float  # the probability that data seeds differ so much by chance


def difference_interval(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95
) -> Interval:
    """The confidence interval of a mean difference over new training seeds and new people.

    Seeds and people are crossed random factors: every seed's model ranks the same people. So the variance of a data
    seed's mean is that of Dorfman, Berbaum and Metz (Invest. Radiol. 1992): between seeds, plus between people less the
    residual, which is in both. The degrees of freedom are Satterthwaite's, as in Hillis (Stat. Med. 2007).
    People of different data seeds are different ones; the variance between seeds is pooled. The data seeds themselves
    are fixed, as two draws cannot tell how draws vary: the interval is of their mean, and `alike` (Cochran's test of
    homogeneity, Biometrics 1954, by F) says whether they differ by more than seeds and people explain.

    `parts` are for each data seed the differences (seeds, people), and each person's weight (people,), their queries.
    Returns the mean over all runs; without a data seed of two runs its ends are NaN.
    """
    parts = [(np.asarray(values, float), np.asarray(weights, float)) for values, weights in parts]
    counts = np.array([len(values) for values, _ in parts])
    if not counts.sum():
        return Interval(np.nan, np.nan, np.nan, 0, np.nan)
    by_seed = [
        values @ weights / weights.sum() for values, weights in parts
    ]  # each run's difference in mAP
    means, shares = np.array([seeds.mean() for seeds in by_seed]), counts / counts.sum()
    mean, free = float(shares @ means), int((counts - 1).sum())
    if not free:
        return Interval(mean, np.nan, np.nan, int(counts.sum()), np.nan)
    seeds = sum(((each - each.mean()) ** 2).sum() for each in by_seed) / free / counts
    people = np.array([_between_people(*part) for part in parts])
    components = [
        (shares**2 @ seeds, free),
        (shares**2 @ people, sum(values.shape[1] - 1 for values, _ in parts)),
    ]
    variance = sum(part for part, _ in components)
    freedom = variance**2 / max(sum(part**2 / degrees for part, degrees in components), 1e-300)
    half = stats.t.ppf((1 + level) / 2, max(freedom, 1.0)) * np.sqrt(variance)
    alike, precision = np.nan, 1 / np.maximum(seeds + people, 1e-300)
    if len(parts) > 1:
        apart = precision @ (means - precision @ means / precision.sum()) ** 2 / (len(parts) - 1)
        alike = float(stats.f.sf(apart, len(parts) - 1, max(freedom, 1.0)))
    return Interval(mean, mean - half, mean + half, int(counts.sum()), alike)


def _between_people(values: np.ndarray, weights: np.ndarray) -> float:
    """The part of a mean's variance that is between people, the residual (person x seed) taken off; from 0."""
    seeds, people = values.shape
    weights = weights / weights.mean()
    centred = values - (values @ weights / weights.sum())[:, None]
    person = centred.mean(axis=0)
    found = (weights * person) @ (weights * person) / (people * (people - 1))
    if seeds > 1:
        residual = weights * (centred - person)
        found -= (residual**2).sum() / (seeds * (seeds - 1) * people * (people - 1))
    return max(0.0, float(found))
