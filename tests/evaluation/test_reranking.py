"""Re-ranking: equal to the published algorithm, written slowly here, and to released numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusionreid.evaluation import distances
from fusionreid.evaluation.distances import FeatureDistances, KnownDistances
from fusionreid.evaluation.evaluate import Retrieval
from fusionreid.evaluation.ranking import Labels, evaluate_ranking, rank_by
from fusionreid.evaluation.reranking import RerankedDistances, Reranking, k_reciprocal, neighbours

CONFORMANCE = Path(__file__).parents[1] / "fixtures" / "ranking.npz"


def evaluate_distances(matrix, *labels):
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    query = Labels(query_ids, query_cameras)
    gallery = Labels(gallery_ids, gallery_cameras)
    return rank_by(KnownDistances(matrix.astype(np.float32)), query, gallery)


def published(query, gallery, k1=20, k2=6, weight=0.3):
    """Zhong et al., CVPR 2017, image by image on dense N x N matrices."""
    features = np.concatenate([query, gallery]).astype(np.float64)
    original = ((features[:, None] - features[None]) ** 2).sum(-1)
    original = (original / original.max(axis=1, keepdims=True)).astype(np.float32)
    order = np.argsort(original, axis=1, kind="stable")
    total = len(features)

    def reciprocal(image, k):
        return [other for other in order[image, : k + 1] if image in order[other, : k + 1]]

    encoding = np.zeros((total, total), np.float32)
    for image in range(total):
        near = reciprocal(image, k1)
        expanded = set(near)
        for other in near:
            theirs = reciprocal(other, int(np.around(k1 / 2)))
            if len(set(theirs) & set(near)) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        expanded = sorted(expanded)
        weights = np.exp(-original[image, expanded])
        encoding[image, expanded] = weights / weights.sum()
    encoding = np.stack([encoding[order[image, :k2]].mean(axis=0) for image in range(total)])
    overlap = np.minimum(encoding[: len(query), None], encoding[None, len(query) :]).sum(-1)
    jaccard = 1 - overlap / (2 - overlap)
    return (1 - weight) * jaccard + weight * original[: len(query), len(query) :]


def people(seed=0, queries=30, gallery=150, identities=20, width=16, spread=0.7):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((identities, width))
    labels = [
        rng.integers(0, identities, queries),
        rng.integers(0, identities, gallery),
        rng.integers(0, 4, queries),
        rng.integers(0, 4, gallery),
    ]
    features = [
        centres[ids] + spread * rng.standard_normal((len(ids), width)) for ids in labels[:2]
    ]
    return [
        (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in features
    ], labels


@pytest.mark.parametrize(
    "parameters",
    [
        dict(),
        dict(k1=7, k2=3, weight=0.5),
        dict(k1=5, k2=1),
        dict(k1=1, k2=1),
        dict(k1=6, k2=12, weight=0.0),
        dict(weight=1.0),
        dict(k1=40, k2=2),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_published_algorithm(seed, parameters):
    features, _ = people(seed)
    np.testing.assert_allclose(
        k_reciprocal(*features, **parameters), published(*features, **parameters), atol=1e-5
    )


def test_equals_the_published_algorithm_with_duplicates():
    rng = np.random.default_rng(0)
    query, gallery = (rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (20, 120))
    np.testing.assert_allclose(
        k_reciprocal(query, gallery, 9, 4), published(query, gallery, 9, 4), atol=1e-5
    )


def test_equals_the_released_numbers():
    """To what float16 encodings, which the released code keeps, can hold."""
    data = np.load(CONFORMANCE)
    features = [
        data[name] / np.linalg.norm(data[name], axis=1, keepdims=True) for name in ("qf", "gf")
    ]
    labels = [data[name] for name in ("q_ids", "g_ids", "q_cams", "g_cams")]
    matrix = k_reciprocal(*features)
    assert matrix.shape == (300, 2500) and matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, data["rerank_20_6"], atol=2e-3)
    for found in (
        evaluate_ranking(*features, *labels, rerank=True),
        evaluate_distances(matrix, *labels),
    ):
        assert found.mAP == pytest.approx(float(data["rerank_mAP"]), abs=1e-3)
        np.testing.assert_allclose(found.cmc, data["rerank_cmc"], atol=7 / 300)


@pytest.mark.parametrize("rows, product", [(64, 1000), (4, 32)])
def test_ranking_block_by_block_is_that_of_the_matrix(rows, product, monkeypatch):
    monkeypatch.setattr(distances, "ROWS", rows)
    monkeypatch.setattr(distances, "PRODUCT", product)
    features, labels = people()
    expected = evaluate_distances(published(*features, 8, 3), *labels)
    ranking = evaluate_ranking(*features, *labels, rerank=dict(k1=8, k2=3))
    np.testing.assert_allclose(ranking.average_precision, expected.average_precision, atol=1e-6)
    np.testing.assert_array_equal(ranking.cmc, expected.cmc)
    plain = evaluate_ranking(*features, *labels)
    assert ranking.mAP > plain.mAP + 0.01, "neighbourhoods help on clustered people"
    retrieval = Retrieval(
        {"x": features[0]},
        {"x": features[1]},
        Labels(labels[0], labels[2]),
        Labels(labels[1], labels[3]),
    )
    shown = retrieval.nearest(rerank=dict(k1=8, k2=3), top=150)
    first = shown.match.argmax(axis=1) + 1
    np.testing.assert_array_equal(first[ranking.queries], ranking.first_match)


def test_any_part_of_the_distances():
    features, _ = people()
    source = RerankedDistances(*features, Reranking(k1=8, k2=3))
    whole = source.block(np.arange(30))
    for queries in ([4, 2], [3, 4]):
        np.testing.assert_allclose(source.block(np.array(queries)), whole[queries], atol=1e-6)


@pytest.mark.parametrize(
    "convert", [torch.from_numpy, lambda x: x.astype(np.float64), lambda x: x.astype(np.float16)]
)
def test_any_container(convert):
    features, _ = people()
    result = k_reciprocal(*map(convert, features), k1=8, k2=3)
    assert isinstance(result, np.ndarray)
    np.testing.assert_allclose(
        result, published(*(np.asarray(convert(x)) for x in features), 8, 3), atol=1e-5
    )


def test_fewer_images_than_neighbours():
    features, _ = people(queries=3, gallery=5)
    np.testing.assert_allclose(k_reciprocal(*features), published(*features), atol=1e-5)
    alike = np.ones((3, 4)), np.ones((5, 4))
    assert np.isfinite(k_reciprocal(*alike, k1=2, k2=2)).all()


@pytest.mark.parametrize("product", [1000, 60])
def test_neighbours_are_those_of_a_sort(product, monkeypatch):
    monkeypatch.setattr(distances, "PRODUCT", product)
    rng = np.random.default_rng(0)
    features = rng.integers(-2, 3, (200, 3)).astype(np.float32)
    matrix = ((features[:, None] - features[None]) ** 2).sum(-1)
    nearest, farthest = neighbours(FeatureDistances(features, features), 25)
    np.testing.assert_array_equal(nearest, np.argsort(matrix, axis=1, kind="stable")[:, :25])
    np.testing.assert_array_equal(farthest, matrix.max(axis=1))


@pytest.mark.parametrize(
    "parameters, message",
    [(dict(k1=0), "k1=0"), (dict(k2=1.5), "k2=1.5"), (dict(weight=1.5), "weight=1.5")],
)
def test_parameters_are_checked(parameters, message):
    features, _ = people()
    with pytest.raises(ValueError, match=message):
        k_reciprocal(*features, **parameters)


def test_what_rerank_may_be():
    assert Reranking.of(None) is None and Reranking.of(False) is None
    assert Reranking.of(True) == Reranking.of({}) == Reranking(20, 6, 0.3)
    assert Reranking.of(dict(k1=3)) == Reranking(3) == Reranking(k1=3)
    for wrong in ("yes", 3, dict(k=3), np.eye(2)):
        with pytest.raises(ValueError, match="rerank="):
            Reranking.of(wrong)


def test_features_are_checked():
    (query, gallery), _ = people()
    with pytest.raises(ValueError, match="expected one width"):
        k_reciprocal(query[:, :3], gallery)
    gallery[3, 3] = np.nan
    with pytest.raises(ValueError, match="gallery_features, row 3.*finite"):
        k_reciprocal(query, gallery)
