"""Ranking: equal to a slow, obvious reference, with ties, distractors and junk; clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusionreid.evaluation import distances
from fusionreid.evaluation.distances import FeatureDistances
from fusionreid.evaluation.ranking import Labels, evaluate_ranking, nearest_by

CONFORMANCE = Path(__file__).parents[1] / "fixtures" / "ranking.npz"


def reference(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, max_rank=50):
    """One stable argsort for each query, then a loop over the ranked list."""
    cmc, precisions, trapezoids, penalties, lists = [], [], [], [], []
    for query in range(len(distances)):
        order = np.argsort(distances[query], kind="stable")
        same = (gallery_ids[order] == query_ids[query]) & (gallery_ids[order] >= 0)
        order = order[~(same & (gallery_cameras[order] == query_cameras[query]))]
        lists.append(order)
        hits = (gallery_ids[order] == query_ids[query]) & (gallery_ids[order] >= 0)
        if not hits.any():
            continue
        found, area, trapezoid, before = 0, 0.0, 0.0, 1.0
        for rank, hit in enumerate(hits, start=1):
            found += hit
            if hit:
                area += found / rank / hits.sum()
                trapezoid += (before + found / rank) / 2 / hits.sum()
                last = rank
            before = found / rank
        precisions.append(area)
        trapezoids.append(trapezoid)
        penalties.append(hits.sum() / last)
        cmc.append(np.arange(1, max_rank + 1) > hits.argmax())
    return (
        np.mean(cmc, axis=0),
        np.array(precisions),
        np.mean(trapezoids),
        np.mean(penalties),
        lists,
    )


def nearest(query, gallery, labels, **options):
    query_ids, gallery_ids, query_cameras, gallery_cameras = map(np.asarray, labels)
    query_labels = Labels(query_ids, query_cameras)
    gallery_labels = Labels(gallery_ids, gallery_cameras)
    return nearest_by(FeatureDistances(query, gallery), query_labels, gallery_labels, **options)


def squared(query, gallery):
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    return ((query[:, None] - gallery[None]) ** 2).sum(-1)


def sample(kind: str, seed: int = 0):
    """Features and labels of 40 queries and 300 gallery images, of a kind hard to rank right."""
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((40, 12)), rng.standard_normal((300, 12))
    labels = [
        rng.integers(0, 15, 40),
        rng.integers(0, 15, 300),
        rng.integers(0, 4, 40),
        rng.integers(0, 4, 300),
    ]
    if kind == "ties":  # whole numbers: distances are exact, and few
        query, gallery = rng.integers(-1, 2, (40, 3)), rng.integers(-1, 2, (300, 3))
    elif kind == "all alike":
        query, gallery = np.ones((40, 3)), np.ones((300, 3))
    elif kind == "distractors":
        labels[1][::3], labels[0][:3] = -1, -1
    elif kind == "no match":
        labels[0][:10] = 99
        labels[0][10:15], labels[2][10:15] = 77, 2
        labels[1][5:9], labels[3][5:9] = 77, 2  # only from the queries' own camera
    elif kind == "one camera each":
        labels[2][:], labels[3][:] = 0, 1
    elif kind == "duplicates":
        gallery[150:] = gallery[:150]
        query[:20] = gallery[:20]
    elif kind == "one identity":
        labels[0][:], labels[1][:] = 3, 3
    return query.astype(np.float32), gallery.astype(np.float32), labels


KINDS = (
    "plain",
    "ties",
    "all alike",
    "distractors",
    "no match",
    "one camera each",
    "duplicates",
    "one identity",
)
CUTS = {  # most queries and most distances in a block, and gallery images in a product
    "whole": (64, 1 << 24, 4096),
    "blocks": (7, 1 << 24, 64),
    "slivers": (64, 200, 37),
}


@pytest.fixture
def blocks_of(monkeypatch):
    """Sets the size of the blocks."""

    def cut(rows: int, block: int, product: int) -> None:
        monkeypatch.setattr(distances, "ROWS", rows)
        monkeypatch.setattr(distances, "BLOCK", block)
        monkeypatch.setattr(distances, "PRODUCT", product)

    return cut


def assert_equal(ranking, expected, tolerance=1e-9):
    cmc, precision, trapezoid, penalty, _ = expected
    assert ranking.num_valid == len(precision) == len(ranking.queries) == len(ranking.first_match)
    np.testing.assert_array_equal(ranking.cmc, cmc)
    np.testing.assert_allclose(ranking.average_precision, precision, atol=tolerance)
    assert ranking.mAP == pytest.approx(precision.mean(), abs=tolerance)
    assert ranking.mAP_trapezoid == pytest.approx(trapezoid, abs=tolerance)
    assert ranking.mINP == pytest.approx(penalty, abs=tolerance)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_slow_reference(kind, cut, blocks_of):
    blocks_of(*CUTS[cut])
    for seed in range(3):
        query, gallery, labels = sample(kind, seed)
        assert_equal(
            evaluate_ranking(query, gallery, *labels), reference(squared(query, gallery), *labels)
        )


def test_equals_the_released_evaluation(blocks_of):
    data = np.load(CONFORMANCE)
    query, gallery = (
        data[name] / np.linalg.norm(data[name], axis=1, keepdims=True) for name in ("qf", "gf")
    )
    labels = [data[name] for name in ("q_ids", "g_ids", "q_cams", "g_cams")]
    for product in (4096, 700):
        blocks_of(64, 1 << 24, product)
        ranking = evaluate_ranking(query, gallery, *labels)
        assert ranking.mAP == pytest.approx(float(data["mAP"]), abs=1e-6)
        np.testing.assert_allclose(ranking.cmc, data["cmc"], atol=1e-6)
        assert ranking.rank(1) == ranking.cmc[0] == ranking.summary()["rank-1"]


def test_by_hand():
    # Ranked: a wrong one, a match, [the query's camera], a wrong one, a match.
    gallery = np.array([[4.0], [1.0], [3.0], [2.0], [2.5]])
    ranking = evaluate_ranking(
        np.zeros((1, 1)), gallery, [5], [5, 6, 7, 5, 5], [0], [1, 1, 1, 1, 0], max_rank=3
    )
    assert ranking.mAP == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert ranking.mAP_trapezoid == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert ranking.mINP == 2 / 4
    np.testing.assert_array_equal(ranking.cmc, [0, 1, 1])
    np.testing.assert_array_equal(ranking.first_match, [2])


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.tolist(),
        torch.from_numpy,
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.float16),
        lambda x: torch.from_numpy(x).to(torch.bfloat16),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: x.astype(np.int32),
        lambda x: np.asfortranarray(x)[::-1][::-1],
        lambda x: x.astype(">f4"),
    ],
)
def test_any_container(convert):
    query, gallery, labels = sample("ties")  # whole numbers are the same in every type
    expected = reference(squared(query, gallery), *labels)
    assert_equal(evaluate_ranking(convert(query), convert(gallery), *labels), expected)
    assert_equal(
        evaluate_ranking(convert(query), convert(gallery), *map(torch.from_numpy, labels)), expected
    )


def test_memory_maps_are_read_without_a_warning(tmp_path, recwarn, blocks_of):
    blocks_of(64, 1 << 24, 100)
    query, gallery, labels = sample("plain")
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    ranking = evaluate_ranking(query, mapped, *labels)
    assert_equal(ranking, reference(squared(query, gallery), *labels))
    assert not recwarn.list


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_for_pictures_is_the_top_of_the_scored_ranking(kind, blocks_of):
    query, gallery, labels = sample(kind)
    expected = reference(squared(query, gallery), *labels)[-1]
    for product in (1000, 64):
        blocks_of(7, 1 << 24, product)
        shown = nearest(query, gallery, labels, top=12)
        for row, order in enumerate(expected):
            count = min(12, len(order))
            np.testing.assert_array_equal(shown.gallery[row, :count], order[:count])
            assert (shown.gallery[row, count:] == -1).all() and not shown.match[row, count:].any()
    ranking = evaluate_ranking(query, gallery, *labels)
    for row, first in zip(
        ranking.queries, ranking.first_match, strict=True
    ):  # the scores, from the list
        assert shown.match[row].any() == (first <= 12)
        if first <= 12:
            assert shown.match[row].argmax() + 1 == first


def test_a_list_longer_than_the_gallery_is_padded():
    query, gallery, labels = sample("plain")
    shown = nearest(query[:1], gallery[:4], ([1], [1, 1, 2, 3], [0], [0, 1, 1, 1]), top=6)
    assert (shown.gallery[0] >= 0).sum() == 3 and 0 not in shown.gallery[0]
    assert (shown.gallery[0, 3:] == -1).all() and not shown.match[0, 3:].any()
    assert nearest(query, gallery, labels).gallery.shape == (40, 10)
    with pytest.raises(ValueError, match="top=0; expected a whole number from 1"):
        nearest(query, gallery, labels, top=0)


def test_nothing_of_the_size_of_queries_times_gallery_is_allocated(monkeypatch, blocks_of):
    """Blocks stay within their bound, whatever the number of matches."""
    query, gallery, labels = sample("one identity")
    largest = []
    block = FeatureDistances.block

    def watched(self, queries):
        result = block(self, queries)
        largest.append(result.size)
        return result

    monkeypatch.setattr(FeatureDistances, "block", watched)
    blocks_of(2, 1 << 24, 4096)
    evaluate_ranking(query, gallery, *labels)
    assert max(largest) <= 2 * 300 and len(largest) >= 20


def bad(**changes):
    query, gallery, (query_ids, gallery_ids, query_cameras, gallery_cameras) = sample("plain")
    arguments = dict(
        query_features=query,
        gallery_features=gallery,
        query_ids=query_ids,
        gallery_ids=gallery_ids,
        query_cameras=query_cameras,
        gallery_cameras=gallery_cameras,
    )
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return arguments


def with_row(value):
    def change(features):
        features = features.copy()
        features[7] = value
        return features

    return change


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(query_features=with_row(np.nan)), "query_features, row 7.*finite"),
        (dict(gallery_features=with_row(np.inf)), "gallery_features, row 7.*finite"),
        (dict(gallery_features=with_row(1e30)), "gallery_features.*float32 can hold"),
        (dict(query_features=lambda x: x[:, :5]), "expected one width, found 5 and 12"),
        (dict(query_features=lambda x: x[0]), r"query_features.*\(images, width\).*\(12,\)"),
        (dict(query_features=lambda x: x.astype(complex)), "query_features.*real"),
        (dict(gallery_features=lambda x: x[:0]), "gallery_features.*at least one"),
        (dict(query_features=lambda x: x[:0]), "query_features.*at least one"),
        (dict(query_ids=lambda x: x[:-1]), r"query_ids.*expected 40.*\(39,\)"),
        (dict(gallery_cameras=lambda x: x[:, None]), "gallery_cameras.*expected 300"),
        (dict(gallery_ids=lambda x: np.where(x == 3, np.nan, x)), "gallery_ids.*NaN"),
        (dict(query_cameras=lambda x: x.astype(str)), "query_cameras.*whole numbers"),
        (dict(max_rank=0), "max_rank=0"),
        (dict(max_rank=2.5), "max_rank=2.5; expected a whole number from 1"),
        (dict(query_cameras=lambda x: x + 0.5), "query_cameras: expected 40 whole numbers"),
        (dict(rerank="twice"), "rerank='twice'"),
        (
            dict(query_cameras=0 * np.arange(40), gallery_cameras=0 * np.arange(300)),
            "query's own camera.*camera numbers",
        ),
        (dict(query_ids=100 + np.arange(40)), "found none: 0 of 40 .*same split"),
    ],
)
def test_errors_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(**bad(**changes))


def test_zero_vectors_are_fine_in_euclidean_space():
    ranking = evaluate_ranking(**bad(gallery_features=with_row(0)))
    query, gallery, labels = sample("plain")
    gallery[7] = 0
    assert_equal(ranking, reference(squared(query, gallery), *labels))


def test_without_cameras_no_image_is_left_out():
    query, gallery, (query_ids, gallery_ids, *cameras) = sample("ties")
    ranking = evaluate_ranking(query, gallery, query_ids, gallery_ids, None, None)
    # Cameras of their own: no image is by the camera of a query.
    apart = (np.arange(40), np.arange(300) + 40)
    expected = reference(squared(query, gallery), query_ids, gallery_ids, *apart)
    np.testing.assert_allclose(ranking.cmc, expected[0])
    np.testing.assert_allclose(ranking.average_precision, expected[1])
    ruled = evaluate_ranking(query, gallery, query_ids, gallery_ids, *cameras)
    assert ruled.mAP != ranking.mAP
    unknown = np.full(40, -1), np.full(300, -1)
    assert evaluate_ranking(query, gallery, query_ids, gallery_ids, *unknown).mAP == ranking.mAP
    for given in [(None, cameras[1]), (cameras[0], None)]:
        with pytest.raises(ValueError, match="or None for both .*found None for one of them"):
            evaluate_ranking(query, gallery, query_ids, gallery_ids, *given)
