"""Distances: those of a slow loop, with the same bits in every block; the smallest of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionreid.evaluation import distances
from fusionreid.evaluation.distances import (
    FeatureDistances,
    KnownDistances,
    blocks,
    in_threads,
    padded,
    smallest,
)


def features(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_distances_are_the_slow_loop():
    query = features(5, 7)
    gallery = features(9, 7, seed=1)
    block = FeatureDistances(query, gallery).block(slice(0, 5), slice(0, 9))
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
    whole = source.block(slice(0, 70), slice(0, 1500))
    np.testing.assert_array_equal(whole[:, 1400:], whole[:, :100], "equal features are equally far")
    for rows, columns in [
        (slice(0, 1), slice(0, 1500)),
        (slice(3, 20), slice(7, 8)),
        (slice(0, 70), slice(1490, 1500)),
        (slice(69, 70), slice(5, 900)),
    ]:
        np.testing.assert_array_equal(source.block(rows, columns), whole[rows, columns])
    chosen = np.array([5, 1400, 3, 77])
    np.testing.assert_array_equal(source.block(chosen[:1], chosen), whole[5:6, chosen])
    assert source.block(chosen[:1], chosen[:0]).shape == (1, 0)
    monkeypatch.setattr(distances, "PRODUCT", 700)
    np.testing.assert_array_equal(source.block(slice(0, 70), slice(0, 1500)), whole)
    joined = source.joined().block(slice(0, 1570), slice(0, 1570))
    np.testing.assert_array_equal(joined[:70, 70:], whole)
    np.testing.assert_array_equal(joined[70:, :70], whole.T)


def test_pairs_are_those_of_the_block(monkeypatch):
    monkeypatch.setattr(distances, "PAIRS", 4)
    source = FeatureDistances(features(20, 8), features(30, 8, seed=1))
    whole = source.block(slice(0, 20), slice(0, 30))
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
    before = source.block(slice(0, 4), slice(0, 6))
    source.block(slice(0, 4), slice(0, 6))[:] = np.inf
    np.testing.assert_array_equal(source.block(slice(0, 4), slice(0, 6)), before)
    part = source.block(np.array([2, 0]), slice(1, 5))
    np.testing.assert_array_equal(part, before[[2, 0], 1:5])


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", "<i4", "u1", "?"])
def test_types_and_memory_maps_without_a_warning(dtype, tmp_path, recwarn):
    query = (10 * features(3, 4)).astype(dtype)
    gallery = (10 * features(8, 4, seed=1)).astype(dtype)
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    block = FeatureDistances(query, mapped).block(slice(0, 3), slice(0, 8))
    difference = query[:, None].astype(np.float64) - gallery[None].astype(np.float64)
    np.testing.assert_allclose(block, (difference**2).sum(axis=-1), rtol=1e-3, atol=1e-3)
    assert not recwarn.list


def test_tensors_of_any_layout():
    query = torch.from_numpy(features(4, 6))
    expected = FeatureDistances(query, query).block(slice(0, 4), slice(0, 4))
    turned = torch.from_numpy(features(4, 6).T.copy()).T
    for same in (query.requires_grad_(), turned, features(4, 6)[::-1][::-1], query.tolist()):
        block = FeatureDistances(same, query).block(slice(0, 4), slice(0, 4))
        np.testing.assert_array_equal(block, expected)


def test_blocks_cover_the_gallery_and_hide_images(monkeypatch):
    monkeypatch.setattr(distances, "COLUMNS", 4)
    matrix = features(2, 10)
    hidden = [np.array([0, 5]), np.array([], np.int64)]
    parts = list(blocks(KnownDistances(matrix), slice(0, 2), hidden))
    assert [low for low, _ in parts] == [0, 4, 8]
    whole = np.hstack([block for _, block in parts])
    expected = matrix.copy()
    expected[0, [0, 5]] = np.inf
    np.testing.assert_array_equal(whole, expected)


@pytest.mark.parametrize("columns", [3, 50, 1000])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_the_smallest_are_those_of_a_stable_sort(k, columns, monkeypatch):
    monkeypatch.setattr(distances, "COLUMNS", columns)
    matrix = np.random.default_rng(0).integers(0, 9, (6, 120)).astype(np.float32)  # many ties
    values, places = smallest(blocks(KnownDistances(matrix), slice(0, 6)), k)
    order = np.argsort(matrix, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(matrix, order, axis=1))


def test_threads_return_the_blocks_in_order():
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        results = in_threads(lambda rows: (rows, torch.backends.cuda.matmul.allow_tf32), 150)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert [rows for rows, _ in results] == [slice(0, 64), slice(64, 128), slice(128, 150)]
    assert not any(tf32 for _, tf32 in results), "products are in full float32"


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
