"""Ranking: equal to a slow, obvious reference, ties, distractors and left-out images included; its errors say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusionreid.evaluation import counting, metrics
from fusionreid.evaluation.counting import count_before, count_before_rows
from fusionreid.evaluation.distances import FeatureDistances, Features, Joined
from fusionreid.evaluation.metrics import evaluate_distances, evaluate_ranking, nearest

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
    return np.mean(cmc, axis=0), np.array(precisions), np.mean(trapezoids), np.mean(penalties), lists


def squared(query, gallery):
    query, gallery = query.astype(np.float64), gallery.astype(np.float64)
    return ((query[:, None] - gallery[None]) ** 2).sum(-1)


def sample(kind: str, seed: int = 0):
    """Features and labels of 40 queries and 300 gallery images, of a kind that is hard to rank right."""
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((40, 12)), rng.standard_normal((300, 12))
    labels = [rng.integers(0, 15, 40), rng.integers(0, 15, 300), rng.integers(0, 4, 40), rng.integers(0, 4, 300)]
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


KINDS = ("plain", "ties", "all alike", "distractors", "no match", "one camera each", "duplicates", "one identity")
CUTS = {
    "whole": {},
    "blocks": {"query_block": 7, "gallery_block": 64},
    "threads": {"threads": 3, "query_block": 3},
    "slivers": {"query_block": 1, "gallery_block": 37},
}


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
def test_equals_the_slow_reference(kind, cut):
    query, gallery, labels = sample(kind)
    assert_equal(evaluate_ranking(query, gallery, *labels, **CUTS[cut]), reference(squared(query, gallery), *labels))


@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("sort_above, sparse", [(0, 1e9), (0, 2), (1000, 1e9), (1000, 3)])
def test_comparing_and_sorting_count_alike(seed, sort_above, sparse, monkeypatch):
    monkeypatch.setattr(counting, "SORT_ABOVE", sort_above)
    monkeypatch.setattr(counting, "SPARSE", sparse)
    for kind in ("plain", "ties", "duplicates"):
        query, gallery, labels = sample(kind, seed)
        assert_equal(evaluate_ranking(query, gallery, *labels), reference(squared(query, gallery), *labels))


@pytest.mark.parametrize("sort_above", [0, 1000])
@pytest.mark.parametrize("ties_above", [0, 1000])
def test_rows_of_a_device_count_alike(sort_above, ties_above, monkeypatch):
    monkeypatch.setattr(counting, "SORT_ABOVE_ON_DEVICE", sort_above)
    monkeypatch.setattr(counting, "SORT_ABOVE", sort_above)
    monkeypatch.setattr(counting, "TIES_ABOVE", ties_above)
    rng = np.random.default_rng(0)
    block = rng.integers(-3, 4, (6, 50)).astype(np.float32)
    block[:, ::9] = np.inf
    distance, position = rng.integers(-4, 5, (6, 8)).astype(np.float32), rng.integers(-5, 60, (6, 8))
    distance[0, :3] = 0.0, -0.0, 0.0
    order = np.lexsort((position, distance))
    distance, position = np.take_along_axis(distance, order, 1), np.take_along_axis(position, order, 1)
    expected = [
        [((row < d) | ((row == d) & (np.arange(50) < p))).sum() for d, p in zip(*limits, strict=True)]
        for row, *limits in zip(block, distance, position, strict=True)
    ]
    counts = count_before_rows(*map(torch.from_numpy, (block, distance, position)))
    np.testing.assert_array_equal(counts, expected)
    for row, *limits, count in zip(block, distance, position, expected, strict=True):
        np.testing.assert_array_equal(count_before(row, *limits, np.empty(50, bool)), count)


def test_equals_the_released_evaluation():
    data = np.load(CONFORMANCE)
    query, gallery = (data[name] / np.linalg.norm(data[name], axis=1, keepdims=True) for name in ("qf", "gf"))
    labels = [data[name] for name in ("q_ids", "g_ids", "q_cams", "g_cams")]
    for ranking in (
        evaluate_ranking(query, gallery, *labels),
        evaluate_ranking(data["qf"], data["gf"], *labels, metric="cosine"),
        evaluate_ranking(query, gallery, *labels, gallery_block=700),
    ):
        assert ranking.mAP == pytest.approx(float(data["mAP"]), abs=1e-6)
        np.testing.assert_allclose(ranking.cmc, data["cmc"], atol=1e-6)
        assert ranking.rank(1) == ranking.cmc[0]


def test_by_hand():
    # Ranked: a wrong one, a match, [the query's camera], a wrong one, a match.
    gallery = np.array([[4.0], [1.0], [3.0], [2.0], [2.5]])
    ranking = evaluate_ranking(np.zeros((1, 1)), gallery, [5], [5, 6, 7, 5, 5], [0], [1, 1, 1, 1, 0], max_rank=3)
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
    assert_equal(evaluate_ranking(convert(query), convert(gallery), *map(torch.from_numpy, labels)), expected)


def test_memory_maps_are_read_without_a_warning(tmp_path, recwarn):
    query, gallery, labels = sample("plain")
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    ranking = evaluate_ranking(query, mapped, *labels, gallery_block=100)
    assert_equal(ranking, reference(squared(query, gallery), *labels))
    assert not recwarn.list


def test_cosine_ignores_lengths():
    query, gallery, labels = sample("plain")
    stretched = gallery * np.random.default_rng(0).uniform(0.1, 10, (300, 1)).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    expected = reference(1 - unit[0].astype(np.float64) @ unit[1].T.astype(np.float64), *labels)
    assert_equal(evaluate_ranking(query, stretched, *labels, metric="cosine"), expected)


def test_a_matrix_of_distances():
    query, gallery, labels = sample("ties")
    matrix = squared(query, gallery)
    assert_equal(evaluate_distances(matrix, *labels), reference(matrix, *labels))
    matrix[3, 4] = np.nan
    with pytest.raises(ValueError, match="finite"):
        evaluate_distances(matrix, *labels)


@pytest.mark.parametrize("width", [3, 64, 100, 600])
def test_a_pair_has_the_same_distance_in_every_block(width):
    rng = np.random.default_rng(width)
    query, gallery = (rng.standard_normal((count, width)).astype(np.float32) for count in (70, 1500))
    gallery[1400:] = gallery[:100]
    distances = FeatureDistances(query, gallery)
    whole = distances.block(slice(0, 70), slice(0, 1500))
    assert torch.equal(whole[:, 1400:], whole[:, :100]), "equal features are equally far"
    for rows, columns in (((0, 1), (0, 1500)), ((3, 20), (7, 8)), ((0, 70), (1490, 1500)), ((69, 70), (5, 900))):
        part = distances.block(slice(*rows), slice(*columns))
        assert torch.equal(part, whole[slice(*rows), slice(*columns)])
    chosen = np.array([5, 1400, 3, 77])
    assert torch.equal(distances.block(chosen[:1], chosen), whole[5:6, torch.from_numpy(chosen)])
    np.testing.assert_allclose(
        distances.pairs(np.array([0, 9]), np.array([1, 1499])), whole[[0, 9], [1, 1499]], rtol=1e-5, atol=1e-4
    )
    assert float(whole.max()) <= distances.bound()


def test_features_are_moved_as_a_whole_where_they_fit():
    rng, cpu = np.random.default_rng(0), torch.device("cpu")
    first, second = rng.standard_normal((700, 8)).astype(np.float16), rng.integers(-3, 4, (30, 8))
    joined = Joined(Features(first, "a"), Features(second, "b"))
    held = joined.on(cpu, most_bytes=4 * 730 * 8)
    assert held.device == cpu and held.row_name(700) == "b, row 0"
    for which in (slice(0, 730), slice(690, 705), np.array([0, 729, 3])):
        assert torch.equal(held.rows(which, cpu), joined.rows(which, cpu))
        assert held.rows(which, cpu).dtype == torch.float32
    assert joined.on(cpu, most_bytes=4 * 730 * 8 - 1) is joined
    assert held.first.on(cpu, most_bytes=1e9) is held.first


def test_joined_features_are_read_as_one():
    first, second = np.arange(6.0).reshape(3, 2), torch.arange(8.0).reshape(4, 2)
    joined = Joined(Features(first, "a"), Features(second, "b"))
    expected = np.concatenate([first, second])
    for which in (slice(0, 7), slice(1, 3), slice(2, 5), slice(4, 7), np.array([6, 0, 3, 2])):
        np.testing.assert_array_equal(joined.rows(which, torch.device("cpu")), expected[which])


@pytest.mark.parametrize("kind", KINDS)
def test_the_list_for_pictures_is_the_top_of_the_scored_ranking(kind, monkeypatch):
    query, gallery, labels = sample(kind)
    expected = reference(squared(query, gallery), *labels)[-1]
    for columns in (1000, 64):
        monkeypatch.setattr(metrics, "COLUMNS", columns)
        shown = nearest(query, gallery, *labels, top=12, threads=2)
        for row, order in enumerate(expected):
            count = min(12, len(order))
            np.testing.assert_array_equal(shown.gallery[row, :count], order[:count])
            assert (shown.gallery[row, count:] == -1).all() and not shown.match[row, count:].any()
    ranking = evaluate_ranking(query, gallery, *labels)
    for row, first in zip(ranking.queries, ranking.first_match, strict=True):  # the scores, from the list
        assert shown.match[row].any() == (first <= 12)
        if first <= 12:
            assert shown.match[row].argmax() + 1 == first
    some = nearest(query, gallery, *labels, queries=[31, 2], top=12)
    np.testing.assert_array_equal(some.gallery, shown.gallery[[31, 2]])
    np.testing.assert_allclose(some.distance, shown.distance[[31, 2]])


def test_a_list_longer_than_the_gallery_is_padded():
    query, gallery, labels = sample("plain")
    shown = nearest(query[:1], gallery[:4], [1], [1, 1, 2, 3], [0], [0, 1, 1, 1], top=6)
    assert (shown.gallery[0] >= 0).sum() == 3 and 0 not in shown.gallery[0]
    assert np.isinf(shown.distance[0, 3:]).all()
    assert nearest(query, gallery, *labels, queries=[]).gallery.shape == (0, 10)
    with pytest.raises(ValueError, match="indices from 0 to 39"):
        nearest(query, gallery, *labels, queries=[40])


@pytest.mark.parametrize("cut", CUTS)
def test_verification_curve(cut):
    query, gallery, labels = sample("distractors")
    curve = evaluate_ranking(query, gallery, *labels, verification=True, **CUTS[cut]).verification
    distances = squared(query, gallery)
    same = (labels[0][:, None] == labels[1]) & (labels[0][:, None] >= 0)
    scored = ~(same & (labels[2][:, None] == labels[3])) & (labels[0] >= 0)[:, None]
    positives, negatives = np.sort(distances[same & scored]), np.sort(distances[~same & scored])
    assert (curve.num_positives, curve.num_negatives) == (len(positives), len(negatives))
    clear = [k for k, limit in enumerate(curve.threshold) if np.abs(distances - limit).min() > 1e-5]
    assert len(clear) > 1000
    np.testing.assert_allclose(
        curve.true_positive_rate[clear], np.searchsorted(positives, curve.threshold[clear]) / len(positives), atol=1e-12
    )
    np.testing.assert_allclose(
        curve.false_positive_rate[clear],
        np.searchsorted(negatives, curve.threshold[clear]) / len(negatives),
        atol=1e-12,
    )
    area = (np.searchsorted(positives, negatives, "left") + np.searchsorted(positives, negatives, "right")).mean() / 2
    assert curve.auc == pytest.approx(area / len(positives), abs=1e-4)
    for rate in (0.001, 0.1, 0.5):
        limit = negatives[int(rate * len(negatives))]
        assert curve.tpr_at(rate) == pytest.approx((positives < limit).mean(), abs=2 / len(positives))
    assert curve.tpr_at(1) == 1 and 0 < curve.equal_error_rate < 1
    with pytest.raises(ValueError, match="0 to 1"):
        curve.tpr_at(2)
    assert evaluate_ranking(query, gallery, *labels).verification is None


def test_nothing_of_the_size_of_queries_times_gallery_is_allocated(monkeypatch):
    """Blocks stay within their bound, whatever the number of matches."""
    query, gallery, labels = sample("one identity")
    largest = []
    block = FeatureDistances.block

    def watched(self, *args):
        result = block(self, *args)
        largest.append(result.numel())
        return result

    monkeypatch.setattr(FeatureDistances, "block", watched)
    monkeypatch.setattr(metrics, "PAIRS", 600)
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
        (dict(gallery_features=with_row(0), metric="cosine"), "gallery_features, row 7.*zero vector"),
        (dict(query_features=lambda x: x[:, :5]), "expected one width, found 5 and 12"),
        (dict(query_features=lambda x: x[0]), r"query_features.*\(images, width\).*\(12,\)"),
        (dict(query_features=lambda x: x.astype(complex)), "query_features.*real"),
        (dict(gallery_features=lambda x: x[:0]), "gallery_features.*at least one image"),
        (dict(query_features=lambda x: x[:0]), "query_features.*at least one image"),
        (dict(query_ids=lambda x: x[:-1]), r"query_ids.*expected 40.*\(39,\)"),
        (dict(gallery_cameras=lambda x: x[:, None]), "gallery_cameras.*expected 300"),
        (dict(gallery_ids=lambda x: np.where(x == 3, np.nan, x)), "gallery_ids.*NaN"),
        (dict(query_cameras=lambda x: x.astype(str)), "query_cameras.*whole numbers"),
        (dict(metric="manhattan"), "euclidean.*cosine"),
        (dict(max_rank=0), "max_rank=0"),
        (dict(threads=0), "threads=0"),
        (dict(query_block=0), "query_block=0"),
        (dict(rerank="twice"), "rerank='twice'"),
        (
            dict(query_cameras=0 * np.arange(40), gallery_cameras=0 * np.arange(300)),
            "query's own camera.*camera numbers",
        ),
        (dict(query_ids=100 + np.arange(40)), "none of the 40 queries.*none of their identities"),
    ],
)
def test_errors_say_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluate_ranking(**bad(**changes))


def test_zero_vectors_are_fine_in_euclidean_space():
    evaluate_ranking(**bad(gallery_features=with_row(0)))


def test_torchs_threads_are_given_back():
    before = torch.get_num_threads()
    query, gallery, labels = sample("plain")
    evaluate_ranking(query, gallery, *labels, threads=2)
    assert torch.get_num_threads() == before
