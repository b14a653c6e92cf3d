"""Confidence intervals, all of 95 %: of means over people, and of differences between rows.

A row is a row of a table, measured by several training seeds on several sets of people.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

# Of each person the mean over their queries, (..., people), and how many these are, (people,).
Scores = tuple[np.ndarray, np.ndarray]


def half_width(standard_error, freedom):
    """Half the width of the interval of a mean, by Student's t."""
    return stats.t.ppf(0.975, freedom) * standard_error


class Interval(NamedTuple):
    """A mean difference and its interval, in the unit of the values; NaN where it is not known."""

    mean: float
    low: float
    high: float
    runs: int  # pairs of runs
    p: float = np.nan  # of Student's test that the true difference is zero, two-sided


UNKNOWN = Interval(np.nan, np.nan, np.nan, 0)


def difference_interval(parts: Sequence[Scores]) -> Interval:
    """The interval of a mean difference over new training seeds and new people.

    Training seeds and people are crossed random factors, because every seed's model ranks the same
    people. So the variance of the mean of one data seed is that of Dorfman, Berbaum and Metz
    (Invest. Radiol. 1992): between seeds, plus between people, minus the residual that both
    contain. The degrees of freedom are Satterthwaite's, as in Hillis (Stat. Med. 2007).

    Data seeds share one variance between training seeds. They are a fixed factor, because two draws
    cannot tell how draws vary: the interval is of their mean. Their people count as different ones.
    Two draws of a real set share some, which makes the interval a little too narrow.

    Args:
        parts: for each data seed, the differences (seeds, people) and the weight of each person
            (people,), the number of their queries.

    Few seeds may be alike by chance, and then the residual may be larger than the part between
    people. So the interval is never narrower than that over people alone.

    Returns the mean over all runs. Its interval is NaN if seeds have fewer than two degrees of
    freedom, as three runs of two data seeds have one: two runs are often alike by chance.
    """
    if not parts:
        return UNKNOWN
    run_means = [_run_means(*part) for part in parts]
    all_means = np.concatenate(run_means)
    runs = len(all_means)
    mean = float(all_means.mean())
    seed_variance, seed_freedom = variance_of_seeds(run_means)
    if seed_freedom < 2:
        return UNKNOWN._replace(mean=mean, runs=runs)

    # The variance of the mean over all runs, in two components.
    shares = np.array([len(means) for means in run_means]) / runs
    people = np.array([_people_variance(*part) for part in parts])
    people_freedom = sum(len(weights) - 1 for _, weights in parts)
    people_variance, residual = shares**2 @ people
    components = [seed_variance / runs, max(0.0, people_variance - residual)]
    variance = sum(components)
    uncertainty = components[0] ** 2 / seed_freedom + components[1] ** 2 / people_freedom
    # Where nothing varies, both are zero.
    freedom = max(variance**2 / uncertainty, 1.0) if uncertainty else 1.0
    # The wider of two: over seeds and people, and over people alone.
    errors = np.sqrt([variance, people_variance])
    freedoms = np.array([freedom, people_freedom])
    half = half_width(errors, freedoms).max()
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(abs(mean) / errors)  # 0 / 0 where nothing differs
    p = 2 * stats.t.sf(t, freedoms).max()
    return Interval(mean, mean - half, mean + half, runs, p)


def deviations(parts: Sequence[Scores]) -> dict[str, float]:
    """How far a mean over people moves with another seed, other people, and another data seed.

    `parts` is as in `difference_interval`. Returns three standard deviations, in the unit of the
    values; NaN where they are not known:

    - "seeds": of one run's mean, between training seeds;
    - "people": of the mean over the runs of a draw, between samples of as many people;
    - "draws": of the mean of a draw, between data seeds. Seeds and people move these, too.
    """
    run_means = [_run_means(*part) for part in parts]
    people = pd.Series([_people_variance(*part)[0] for part in parts], dtype=float)
    draws = pd.Series([means.mean() for means in run_means], dtype=float)
    return {
        "seeds": np.sqrt(variance_of_seeds(run_means)[0]),
        "people": np.sqrt(people.mean()),
        "draws": draws.std(),
    }


def _run_means(differences: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(seeds,) the mean over queries of each run."""
    return differences @ weights / weights.sum()


def variance_of_seeds(run_means: list[np.ndarray]) -> tuple[float, int]:
    """The variance between the training seeds of one data seed, and its degrees of freedom."""
    freedom = sum(len(means) - 1 for means in run_means)
    squares = sum(((means - means.mean()) ** 2).sum() for means in run_means)
    return squares / freedom if freedom else np.nan, freedom


def _people_variance(differences: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """The variance of a mean that people see, and the residual that it contains."""
    seeds, people = differences.shape
    centred = differences - _run_means(differences, weights)[:, None]
    weights = weights / weights.mean()
    person = centred.mean(axis=0)
    variance = (weights * person) @ (weights * person) / (people * (people - 1))
    if seeds == 1:
        return variance, 0.0
    residual = weights * (centred - person)
    return variance, (residual**2).sum() / (seeds * (seeds - 1) * people * (people - 1))


def summarise(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean over people of every score of maps, a row for each value of `by`.

    The maps of one person are not independent. So those that `by` does not tell apart, heads for
    example, are averaged within each person first. `low` and `high` are the ends of the interval
    of the energy, and `people` is their number. Rows stay in the order of `scores`.
    """
    measures = list(scores.select_dtypes("floating"))
    people = scores.groupby([*by, "person"], sort=False)[measures].mean()
    groups = people.groupby(by, sort=False)
    table = groups.mean()
    energy = groups["energy"]
    half = half_width(energy.sem(), energy.count() - 1)
    table.insert(1, "low", table["energy"] - half)
    table.insert(2, "high", table["energy"] + half)
    return table.assign(people=energy.count()).reset_index()


def paired_difference(
    scores: pd.DataFrame, measure: str, more: dict, less: dict, smallest: float = 0
) -> dict:
    """Whether maps of one kind have a higher measure than those of another, for the same people.

    Args:
        more, less: the two kinds, each as {column: value}.
        smallest: an interval that lies within it, on either side of 0, is too small to see.

    Returns the means `first` and `second`, their `difference`, `half` the width of its interval
    over people, and `here`: "yes", "the opposite", "too small to see", or "undecided" where the
    interval holds zero or is not known, as that of one person.
    """
    first = _mean_of_each_person(scores, measure, more)
    second = _mean_of_each_person(scores, measure, less)
    differences = first - second
    mean = differences.mean()
    half = half_width(differences.sem(), differences.count() - 1)
    here = "undecided"
    if abs(mean) + half < smallest:
        here = "too small to see"
    elif abs(mean) > half:
        here = "yes" if mean > 0 else "the opposite"
    return {
        "first": first.mean(),
        "second": second.mean(),
        "difference": mean,
        "half": half,
        "here": here,
    }


def _mean_of_each_person(scores: pd.DataFrame, measure: str, kind: dict) -> pd.Series:
    matches = (scores[list(kind)] == pd.Series(kind)).all(axis=1)
    return scores[matches].groupby("person")[measure].mean()
