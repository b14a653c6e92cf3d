"""Networks side by side: what each training seed adds."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
from controls import pseudo_values


def test_pseudo_values_are_what_each_network_adds():
    random = np.random.default_rng(0)
    cnn, transformer = random.normal(size=(2, 4, 7))  # of each seed and person
    same = {(i, j): (cnn[i] + cnn[j]) / 2 for i, j in combinations(range(4), 2)}
    np.testing.assert_allclose(pseudo_values(same), cnn)
    different = {(i, j): cnn[i] + transformer[j] for i, j in permutations(range(4), 2)}
    np.testing.assert_allclose(pseudo_values(different), cnn + transformer)


def test_their_mean_is_that_of_the_pairs():
    pairs = {pair: np.random.default_rng(pair).normal(size=5) for pair in combinations(range(3), 2)}
    found = pseudo_values(pairs)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found.mean(axis=0), np.mean(list(pairs.values()), axis=0))
