"""Distances: those of a slow loop, with the same bits in every block; the smallest of a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionreid.evaluation import distances
from fusionreid.evaluation.distances import (
    FeatureDistances,
    KnownDistances,
    each_query,
    padded,
    smallest,
)


def features(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_distances_are_the_slow_loop():
    query = features(5, 7)
    gallery = features(9, 7, seed=1)
    block = FeatureDistances(query, gallery).block(np.arange(5))
    assert block.shape == (5, 9) and block.dtype == np.float32
    for q in range(5):
        for g in range(9):
            expected = sum((a - b) ** 2 for a, b in zip(query[q], gallery[g], strict=True))
            assert block[q, g] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("width", [3, 64, 100, 600])
def test_a_pair_has_the_same_distance_in_every_block(width, monkeypatch):
    query = features(70, width)
    gallery = features(1500, width, seed=1)
    gallery[1400:] = gallery[:100]
    source = FeatureDistances(query, gallery)
    whole = source.block(np.arange(70))
    np.testing.assert_array_equal(whole[:, 1400:], whole[:, :100], "equal features are equally far")
    for queries in (np.arange(1), np.arange(3, 20), np.array([69]), np.array([5, 3, 69])):
        np.testing.assert_array_equal(source.block(queries), whole[queries])
    for part in (slice(7, 8), slice(1490, 1500), slice(5, 900)):
        alone = FeatureDistances(query, gallery[part]).block(np.arange(70))
        np.testing.assert_array_equal(alone, whole[:, part])
    monkeypatch.setattr(distances, "PRODUCT", 700)
    np.testing.assert_array_equal(source.block(np.arange(70)), whole)
    joined = source.joined().block(np.arange(1570))
    np.testing.assert_array_equal(joined[:70, 70:], whole)
    np.testing.assert_array_equal(joined[70:, :70], whole.T)


def test_pairs_are_those_of_the_block(monkeypatch):
    monkeypatch.setattr(distances, "PAIRS", 4)
    source = FeatureDistances(features(20, 8), features(30, 8, seed=1))
    whole = source.block(np.arange(20))
    queries = np.arange(20) // 2
    gallery = np.arange(20) + 7
    expected = whole[queries, gallery]
    np.testing.assert_allclose(source.pairs(queries, gallery), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", [FeatureDistances, KnownDistances])
def test_a_block_may_be_changed(source):
    if source is FeatureDistances:
        source = FeatureDistances(features(4, 3), features(6, 3, seed=1))
    else:
        source = KnownDistances(features(4, 6))
    before = source.block(np.arange(4))
    source.block(np.arange(4))[:] = np.inf
    np.testing.assert_array_equal(source.block(np.arange(4)), before)
    np.testing.assert_array_equal(source.block(np.array([2, 0])), before[[2, 0]])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "<i4", "u1", "?"])
def test_types_and_memory_maps_without_a_warning(dtype, tmp_path, recwarn):
    query = (10 * features(3, 4)).astype(dtype)
    gallery = (10 * features(8, 4, seed=1)).astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    block = FeatureDistances(query, mapped).block(np.arange(3))
    difference = query[:, None].astype(np.float64) - gallery[None].astype(np.float64)
    np.testing.assert_allclose(block, (difference**2).sum(axis=-1), rtol=1e-3, atol=1e-3)
    assert not recwarn.list


def test_tensors_of_any_layout():
    query = torch.from_numpy(features(4, 6))
    expected = FeatureDistances(query, query).block(np.arange(4))
    turned = torch.from_numpy(features(4, 6).T.copy()).T
    for same in (query.requires_grad_(), turned, features(4, 6)[::-1][::-1], query.tolist()):
        block = FeatureDistances(same, query).block(np.arange(4))
        np.testing.assert_array_equal(block, expected)


@pytest.mark.parametrize("k", [1, 7, 200])
def test_the_smallest_are_those_of_a_stable_sort(k):
    matrix = np.random.default_rng(0).integers(0, 9, (6, 120)).astype(np.float32)  # many ties
    for row in matrix:
        np.testing.assert_array_equal(smallest(row, k), np.argsort(row, kind="stable")[:k])


@pytest.mark.parametrize("rows, block, expected", [(64, 1 << 24, 64), (64, 95, 9), (64, 3, 1)])
def test_every_query_is_worked_on_in_order(rows, block, expected, monkeypatch):
    """In blocks that are bounded by their rows and by their size."""
    monkeypatch.setattr(distances, "ROWS", rows)
    monkeypatch.setattr(distances, "BLOCK", block)
    sizes = []

    class Watched(KnownDistances):
        def block(self, queries):
            sizes.append(len(queries))
            return super().block(queries)

    matrix = features(150, 10)
    queries = np.arange(149, -1, -1)
    products = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = "tf32"
    try:
        found = each_query(
            Watched(matrix), queries, lambda query, row: (query, row, products.fp32_precision)
        )
        assert products.fp32_precision == "tf32"
    finally:
        products.fp32_precision = before
    assert [query for query, _, _ in found] == queries.tolist()
    np.testing.assert_array_equal([row for _, row, _ in found], matrix[::-1])
    assert {precision for _, _, precision in found} == {"ieee"}, "products are in full float32"
    assert max(sizes) == expected and sum(sizes) == 150


def test_padding():
    values = torch.ones(2, 3)
    np.testing.assert_array_equal(padded(values, 4), [[1] * 3, [1] * 3, [0] * 3, [0] * 3])
    np.testing.assert_array_equal(padded(values[:, 0], 3), [1, 1, 0])
    assert padded(values, 2) is values


@pytest.mark.parametrize(
    "query, message",
    [
        (np.ones((2, 5)), "expected one width, found 5 and 3"),
        (np.ones(3), r"query_features: expected real numbers of shape \(images, width\)"),
        (np.ones((0, 3)), "at least one of both"),
        (np.ones((2, 3), complex), "found complex128 of shape"),
        (torch.ones(2, 3, dtype=torch.complex64), "found torch.complex64 of shape"),
        ([["a", "b", "c"]], "query_features: expected real numbers"),
        (np.array([[1, 2, 3], [1, np.nan, 3]]), "query_features, row 1: expected finite numbers"),
        (np.array([[1e30, 2, 3]]), "whose squares float32 can hold, found others here and in 0"),
    ],
)
def test_errors_name_the_argument(query, message):
    with pytest.raises(ValueError, match=message):
        FeatureDistances(query, np.ones((4, 3)))
