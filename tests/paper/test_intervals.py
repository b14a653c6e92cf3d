"""Intervals hold the truth as often as they say, over new seeds and new people."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fusionreid.paper.intervals import deviations, difference_interval, paired_difference, summarise


def simulate(
    random, *, seed=0.0, person=0.0, residual=0.0, sets=2, seeds=4, people=160, weighted=False
):
    """Differences around zero, with known standard deviations.

    These are between training seeds and between people, and of the rest.
    """
    return [
        (
            seed * random.normal(size=(seeds, 1))
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
        # Three seeds tell little of how seeds differ, and two seeds on two draws as little.
        ({"seed": 1.5, "person": 6, "residual": 10, "seeds": 2}, 0.88, 0.97),
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
        widths = []
        for _ in range(60):
            parts = simulate(random, seed=1, person=6, residual=10, sets=1, **case)
            interval = difference_interval(parts)
            widths.append(interval.high - interval.low)
        return np.median(widths) / 2

    assert half(seeds=16) < half(seeds=8) < half(seeds=3) and half(seeds=8, people=640) < half(
        seeds=8
    )


def test_seeds_that_agree_do_not_make_people_certain():
    """The means are equal, and the residual seems larger than what is between people."""
    differences = np.array([[1.0, -1, 3, -3], [-1, 1, -2, 2], [1, -1, 0, 0]])
    found = difference_interval([(differences, np.ones(4))])
    people = differences.mean(axis=0)
    half = stats.t.ppf(0.975, 3) * people.std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((-half, half))


def test_few_seeds_that_agree_make_no_interval_narrower():
    """Three seeds 0.1 apart have two degrees of freedom, and four people have three."""
    differences = np.array([[5.0, -3, -2, 0], [-4, 1, 3, 0], [-1, 2, -1.3, 0.3]])
    differences += [[0.1], [-0.1], [0]]
    found = difference_interval([(differences, np.ones(4))])
    seeds = stats.t.interval(0.95, 2, 0, 0.1 / np.sqrt(3))
    people = stats.t.interval(0.95, 3, 0, differences.mean(axis=0).std(ddof=1) / 2)
    assert people[1] < seeds[1]
    assert (found.low, found.high) == pytest.approx(seeds)


def test_p_is_that_of_the_interval():
    values = np.random.default_rng(1).normal(1, 1, size=8)
    found = difference_interval([(np.repeat(values[:, None], 5, axis=1), np.ones(5))])
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert difference_interval([(np.zeros((3, 3)), np.ones(3))]).p == 1


def test_deviations_are_those_of_seeds_people_and_draws():
    random = np.random.default_rng(5)
    parts = simulate(random, seed=2, person=6, sets=300, people=144)
    found = deviations(parts)
    assert found["seeds"] == pytest.approx(2, rel=0.1)
    assert found["people"] == pytest.approx(6 / np.sqrt(144), rel=0.1)
    both = np.hypot(2 / np.sqrt(4), 6 / np.sqrt(144))
    assert found["draws"] == pytest.approx(both, rel=0.1), "draws have no variance of their own"


def test_deviations_of_too_little_are_not_known():
    assert np.isnan(list(deviations([]).values())).all()
    one = deviations([(np.array([[1.0, 3.0]]), np.ones(2))])
    assert np.isnan(one["seeds"]) and one["people"] == 1 and np.isnan(one["draws"])


def test_too_little_is_no_interval():
    assert np.isnan(difference_interval([]).mean) and difference_interval([]).runs == 0
    one = difference_interval([(np.ones((1, 4)), np.ones(4))])
    assert one.mean == 1 and np.isnan(one.low) and np.isnan(one.high)
    two, single = np.array([[1.0, 2.0], [1.1, 2.1]]), np.ones((1, 2))
    for parts in ([two], [two, single]):  # one degree of freedom between seeds
        found = difference_interval([(scores, np.ones(2)) for scores in parts])
        assert (
            found.runs == sum(map(len, parts)) and np.isnan([found.low, found.high, found.p]).all()
        )
    assert difference_interval([(two, np.ones(2))] * 2).high > 1


def test_an_interval_is_over_people_and_not_over_their_heads():
    random = np.random.default_rng(3)
    people = random.random(7)
    maps = []
    for person, energy in enumerate(people):
        first = {"unit": "seu", "head": 1, "person": person, "energy": energy - 0.1, "peak": 1.0}
        maps += [first, first | {"head": 2, "energy": energy + 0.1}]
    table = pd.DataFrame(maps)
    row = summarise(table, ["unit"]).iloc[0]
    assert row["people"] == 7 and row["energy"] == pytest.approx(people.mean()) and row["peak"] == 1
    half = stats.t.ppf(0.975, 6) * people.std(ddof=1) / np.sqrt(7)
    assert (row["low"], row["high"]) == pytest.approx((people.mean() - half, people.mean() + half))
    heads = summarise(table, ["unit", "head"])
    assert heads["head"].tolist() == [1, 2]
    assert heads["energy"].tolist() == pytest.approx([people.mean() - 0.1, people.mean() + 0.1])
    table.loc[0, "energy"] = np.nan
    assert summarise(table, ["unit", "head"])["people"].tolist() == [6, 7]


def test_a_difference_is_paired_and_may_be_undecided():
    random = np.random.default_rng(4)
    first, second = random.random(9), random.random(9)
    table = pd.DataFrame([{"unit": unit, "layer": 1, "person": person, "energy": energy[person]}
                          for unit, energy in (("seu", first), ("mfu", second), ("far", first + 1))
                          for person in range(9)]).sample(frac=1, random_state=0)  # fmt: skip
    seu, mfu, far = ({"unit": unit, "layer": 1} for unit in ("seu", "mfu", "far"))
    found = paired_difference(table, "energy", seu, mfu)
    half = stats.t.ppf(0.975, 8) * (first - second).std(ddof=1) / 3
    assert found["half"] == pytest.approx(half) and found["difference"] == pytest.approx(
        (first - second).mean()
    )
    assert found["first"] == pytest.approx(first.mean()) and found["second"] == pytest.approx(
        second.mean()
    )
    assert abs(found["difference"]) < half and found["here"] == "undecided"
    assert paired_difference(table, "energy", far, seu)["here"] == "yes"
    assert paired_difference(table, "energy", seu, far)["here"] == "the opposite"
    for more, less in ((far, seu), (seu, far), (seu, mfu)):
        found = paired_difference(table, "energy", more, less)
        end = abs(found["difference"]) + found["half"]  # of the interval, the far one from zero
        for smallest, here in ((end + 1e-6, "too small to see"), (end - 1e-6, found["here"])):
            again = paired_difference(table, "energy", more, less, smallest=smallest)
            assert again["here"] == here


def test_one_person_decides_nothing():
    table = pd.DataFrame({"person": [0, 0], "unit": ["seu", "mfu"], "energy": [1.0, 2.0]})
    found = paired_difference(table, "energy", {"unit": "mfu"}, {"unit": "seu"})
    assert found["difference"] == 1 and np.isnan(found["half"]) and found["here"] == "undecided"
