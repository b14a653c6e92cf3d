"""Confidence intervals: of means over people, and of differences between rows over training seeds and people."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
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


def summarise(scores: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The mean of every score over people, a row for each value of `by`, in the order of the rows.

    `low` and `high` are the ends of the 95 % interval (Student's t) of the energy. What `by` does not tell apart, heads
    for example, is averaged within each person before, as a person's maps are not independent.
    """
    measures = list(scores.select_dtypes("floating"))
    each = scores.groupby([*by, "person"], sort=False)[measures].mean().groupby(by, sort=False)
    mean, people = each.mean(), each["energy"].count()
    half = stats.t.ppf(0.975, people - 1) * each["energy"].sem()
    mean.insert(1, "low", mean["energy"] - half)
    mean.insert(2, "high", mean["energy"] + half)
    return mean.assign(people=people).reset_index()


def paired_difference(scores: pd.DataFrame, measure: str, more: dict, less: dict) -> dict:
    """Whether a measure of the maps chosen by `more`, column -> value, is above that of `less`, for the same people.

    Returns the means `first` and `second`, their `difference`, `half` of its 95 % interval (Student's t over people),
    and `here`: "yes", "the opposite", or "undecided" where the interval holds zero.
    """
    first, second = (
        scores[(scores[list(where)] == pd.Series(where)).all(axis=1)]
        .groupby("person")[measure]
        .mean()
        for where in (more, less)
    )
    each = first - second
    mean, half = each.mean(), stats.t.ppf(0.975, each.count() - 1) * each.sem()
    here = "yes" if mean > half else "the opposite" if mean < -half else "undecided"
    return {
        "first": first.mean(),
        "second": second.mean(),
        "difference": mean,
        "half": half,
        "here": here,
    }


def mean_by(table: pd.DataFrame, by: str | list[str], measure: str = "found") -> pd.DataFrame:
    """Means of a column of shares by the values of others, each with its 95 % interval over people.

    Rows of one person are not independent, so the variance is that of a ratio of sums over people (Cochran, Sampling
    Techniques, 1977, Sec. 6.4), with Student's t. Where all people are alike it is that of as many trials (binomial).

    Returns `mean`, `low`, `high`, `rows`, `queries` and `people`.
    """

    def summary(part: pd.DataFrame) -> pd.Series:
        people = part.groupby("identity")[measure].agg(["sum", "size"]).astype(float)
        mean, count = part[measure].mean(), len(people)
        spread = ((people["sum"] - mean * people["size"]) ** 2).sum() * count / max(count - 1, 1)
        half = (
            stats.t.ppf(0.975, count - 1) * np.sqrt(spread) / len(part)
            if spread
            else 1 - 0.025 ** (1 / count)
        )
        numbers = {
            "mean": mean,
            "low": max(0, mean - half),
            "high": min(1, mean + half),
            "rows": len(part),
        }
        return pd.Series(numbers | {"queries": part["query"].nunique(), "people": count})

    found = table.groupby(by, observed=True)[[*table]].apply(summary)
    return found.astype({name: int for name in ("rows", "queries", "people")})
