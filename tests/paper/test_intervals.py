"""The interval of a difference holds the truth as often as it says, over new seeds and new people."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fusionreid.paper.intervals import difference_interval


def simulate(
    random,
    *,
    data=0.0,
    seed=0.0,
    person=0.0,
    residual=0.0,
    sets=2,
    seeds=4,
    people=160,
    weighted=False,
):
    """Differences around zero with known standard deviations between data seeds, seeds and people, and the rest."""
    return [
        (
            data * random.normal()
            + seed * random.normal(size=(seeds, 1))
            + person * random.normal(size=(1, people))
            + residual * random.normal(size=(seeds, people)),
            random.integers(2, 7, people) if weighted else np.ones(people),
        )
        for _ in range(sets)
    ]


@pytest.mark.parametrize(
    "case, least, most",
    [
        ({"seed": 1, "person": 6, "residual": 10}, 0.93, 0.99),
        ({"seed": 1, "person": 6, "residual": 10, "weighted": True}, 0.93, 0.99),
        ({"seed": 1, "person": 6, "residual": 10, "sets": 1, "seeds": 8}, 0.93, 0.98),
        ({"residual": 10}, 0.93, 0.99),
        ({"seed": 1}, 0.93, 0.99),
        ({"person": 6}, 0.93, 0.99),
        # Three seeds tell little of how seeds differ.
        ({"seed": 1, "person": 6, "residual": 10, "sets": 1, "seeds": 3}, 0.88, 0.97),
    ],
)
def test_coverage(case, least, most):
    random = np.random.default_rng(0)
    found = [difference_interval(simulate(random, **case)) for _ in range(500)]
    assert least <= np.mean([each.low <= 0 <= each.high for each in found]) <= most


def test_seeds_alone_are_the_t_interval():
    values = np.random.default_rng(1).normal(2, 1, size=8)
    found = difference_interval([(np.repeat(values[:, None], 5, axis=1), np.ones(5))])
    expected = stats.t.interval(0.95, 7, values.mean(), values.std(ddof=1) / np.sqrt(8))
    assert (found.low, found.high) == pytest.approx(expected) and found.mean == pytest.approx(
        values.mean()
    )
    assert found.runs == 8


def test_the_mean_is_over_queries_and_runs():
    parts = [
        (np.array([[0.0, 3.0], [0.0, 3.0]]), np.array([2, 1])),
        (np.array([[7.0, 7.0]]), np.array([1, 1])),
    ]
    assert difference_interval(parts).mean == pytest.approx((1 + 1 + 7) / 3)


def test_more_seeds_and_more_people_are_surer():
    def half(**case):
        random = np.random.default_rng(2)
        found = [difference_interval(simulate(random, seed=1, person=6, residual=10, sets=1, **case))
                 for _ in range(60)]  # fmt: skip
        return np.median([(each.high - each.low) / 2 for each in found])

    assert half(seeds=16) < half(seeds=8) < half(seeds=3) and half(seeds=8, people=640) < half(
        seeds=8
    )


def test_data_seeds_that_differ_by_more_than_chance_are_told():
    random = np.random.default_rng(3)

    def share(**case):
        found = [
            difference_interval(simulate(random, seed=1, person=6, residual=10, **case))
            for _ in range(300)
        ]
        return np.mean([each.alike < 0.05 for each in found])

    assert 0.01 < share() < 0.09 and share(data=8) > 0.7
    assert np.isnan(difference_interval(simulate(random, seed=1, sets=1)).alike)


def test_too_little_is_no_interval():
    assert np.isnan(difference_interval([]).mean) and difference_interval([]).runs == 0
    one = difference_interval([(np.ones((1, 4)), np.ones(4))])
    assert one.mean == 1 and np.isnan(one.low) and np.isnan(one.high)
