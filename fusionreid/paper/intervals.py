"""How sure a difference between two rows is: an interval over training seeds, test people and data seeds."""

from __future__ import annotations

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


def difference_interval(parts: Sequence[tuple[np.ndarray, np.ndarray]], level: float = 0.95) -> Interval:
    """The confidence interval of a mean difference over new seeds and new people.

    Seeds and people are crossed random factors: every seed's model ranks the same people, as every reader of a clinical
    study reads the same cases. So the variance of a data seed's mean is that of Dorfman, Berbaum and Metz (Invest.
    Radiol. 1992), between seeds plus between people less the residual counted twice; with the degrees of freedom of
    Hillis (Stat. Med. 2007), (variance)^2 / (sum of (component)^2 / its own). People of different data seeds are
    different ones; variances between seeds are pooled. Where the means of data seeds are further apart than that
    explains, the excess is a third component (DerSimonian and Laird, 1986), of one degree for two data seeds.

    Args:
        parts: for each data seed the differences (seeds, people), and each person's weight (people,), their queries.
        level: of confidence.

    Returns:
        The mean over all runs; without a data seed of two runs its ends are NaN.
    """
    parts = [(np.asarray(values, float), np.asarray(weights, float)) for values, weights in parts if len(values)]
    counts = np.array([len(values) for values, _ in parts])
    if not len(counts):
        return Interval(np.nan, np.nan, np.nan, 0)
    by_seed = [values @ weights / weights.sum() for values, weights in parts]  # each run's difference in mAP
    means, shares = np.array([seeds.mean() for seeds in by_seed]), counts / counts.sum()
    mean, free = float(shares @ means), int((counts - 1).sum())
    if not free:
        return Interval(mean, np.nan, np.nan, int(counts.sum()))
    seeds = sum(((each - each.mean()) ** 2).sum() for each in by_seed) / free / counts
    people = np.array([_between_people(*part) for part in parts])
    inside = seeds + people
    components = [(shares**2 @ seeds, free), (shares**2 @ people, sum(values.shape[1] - 1 for values, _ in parts))]
    if len(parts) > 1:
        excess = max(0.0, means.var(ddof=1) - inside.mean())
        components.append((shares**2 @ np.full(len(parts), excess), len(parts) - 1))
    variance = sum(part for part, _ in components)
    freedom = variance**2 / max(sum(part**2 / degrees for part, degrees in components), 1e-300)
    half = stats.t.ppf((1 + level) / 2, max(freedom, 1.0)) * np.sqrt(variance)
    return Interval(mean, mean - half, mean + half, int(counts.sum()))


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
