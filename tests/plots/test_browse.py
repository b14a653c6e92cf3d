"""Rankings by every switch are those of the evaluation, maps of a pair those of `explain`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionreid import PAPER, build_model
from fusionreid.config import PROFILES
from fusionreid.evaluation import explain
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.evaluation.ranking import distances_between
from fusionreid.plots.browse import Rankings, Switches, pair_maps


@pytest.fixture(scope="module")
def rankings(tiny_dataset, tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(PROFILES["smoke"].scale(PAPER), num_classes=4, num_cameras=6).eval()
    # The embedding starts at zero: it would change nothing.
    torch.nn.init.normal_(model.branches["transformer"].camera_embedding)
    directory = tmp_path_factory.mktemp("cache")
    retrieval = {
        use: retrieve(model, tiny_dataset, cache_directory=directory, use_cameras=use)
        for use in (True, False)
    }
    return Rankings(model, tiny_dataset, retrieval)


def rerank(weight: float) -> dict | None:
    return None if weight == 1 else {"weight": weight}


@pytest.mark.parametrize("feature", ["all", "cnn", "transformer_fused"])
@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_a_ranking_is_that_of_the_evaluation(rankings, tmp_path, feature, cameras, weight):
    retrieval = retrieve(
        rankings.model, rankings.dataset, cache_directory=tmp_path, use_cameras=cameras
    )
    expected = retrieval.rank(feature, rerank=rerank(weight))
    ranking = rankings.ranking(Switches(feature, cameras, weight))
    np.testing.assert_allclose(ranking.average_precision, expected.average_precision)
    np.testing.assert_array_equal(ranking.first_match, expected.first_match)


def matrix(distances):
    return distances.block(np.arange(distances.shape[0]))


def test_every_switch_changes_the_distances(rankings):
    plain = matrix(rankings.distances(Switches()))
    for switches in (Switches("cnn"), Switches(cameras=False), Switches(weight=0.3)):
        assert not np.array_equal(matrix(rankings.distances(switches)), plain)


def test_a_weight_leaves_the_distances_of_another_as_they_were(rankings):
    distances = rankings.distances(Switches(weight=0.3))
    before = matrix(distances)
    assert not np.array_equal(matrix(rankings.distances(Switches(weight=0.9))), before)
    np.testing.assert_array_equal(matrix(distances), before)


def test_a_ranking_is_kept(rankings):
    assert rankings.ranking(Switches()) is rankings.ranking(Switches())


@pytest.mark.parametrize("switches", [Switches(), Switches("cnn", False, 0.3)])
def test_a_list_is_that_of_the_evaluation(rankings, switches):
    retrieval = rankings.retrieval[switches.cameras]
    queries = [4, 0, 2]
    expected = retrieval.nearest(switches.feature, top=7, rerank=rerank(switches.weight))
    ranked, cosines = rankings.listed(queries, switches, top=7)
    np.testing.assert_array_equal(ranked.gallery, expected.gallery[queries])
    np.testing.assert_array_equal(ranked.match, expected.match[queries])
    query, gallery = retrieval.select(switches.feature)
    for row, place in enumerate(queries):
        expected_cosines = gallery[ranked.gallery[row]] @ query[place]
        np.testing.assert_allclose(cosines[row], expected_cosines, atol=1e-5)


def test_a_list_holds_only_what_is_asked_for_in_the_same_order(rankings):
    count = len(rankings.dataset.gallery)
    whole, _ = rankings.listed([2], Switches(), top=count)
    among = np.arange(count) % 3 == 0
    part, _ = rankings.listed([2], Switches(), top=count, among=among)
    expected = [place for place in whole.gallery[0] if place >= 0 and among[place]]
    assert part.gallery[0][: len(expected)].tolist() == expected
    assert (part.gallery[0][len(expected) :] == -1).all()


def test_a_list_among_nothing_is_empty(rankings):
    nothing = np.zeros(len(rankings.dataset.gallery), bool)
    ranked, _ = rankings.listed([2], Switches(), top=5, among=nothing)
    assert ranked.gallery.tolist() == [[-1] * 5]
    assert not ranked.match.any()


@pytest.mark.parametrize("switches", [Switches(), Switches("cnn", False), Switches(weight=0.3)])
def test_a_picture_is_ranked_as_a_query_without_a_camera(rankings, switches):
    picture = rankings.dataset.query[3].path
    asked = rankings.of_picture(picture)
    ranked, cosines = asked.listed([0], switches, top=7)
    retrieval = rankings.retrieval[switches.cameras]
    vector = rankings.retrieval[False].select(switches.feature)[0][3:4]  # no camera embedding
    _, gallery = retrieval.select(switches.feature)
    distances = distances_between(vector, gallery, rerank(switches.weight))
    order = np.argsort(matrix(distances)[0], kind="stable")[:7]  # no image is left out
    np.testing.assert_array_equal(ranked.gallery[0], order)
    np.testing.assert_allclose(cosines[0], gallery[order] @ vector[0], atol=1e-5)
    assert not ranked.match.any()


def test_neighbours_are_the_nearest_of_the_images_given(rankings):
    images = np.arange(1, 30, 2)
    vectors = np.vstack(rankings.retrieval[True].select("cnn"))[images]
    distances = ((vectors[:, None] - vectors) ** 2).sum(axis=2)
    expected = images[np.argsort(distances, axis=1, kind="stable")[:, 1:5]]
    np.testing.assert_array_equal(rankings.neighbours("cnn", images, 4), expected)


def test_maps_of_a_pair_are_each_ones_toward_the_other(rankings):
    model = rankings.model
    pair = [rankings.dataset.query[0], rankings.dataset.gallery[7]]
    images, cam, _ = pair_maps(model, pair, ("transformer", "after HTM 1"), (2, "mfu", "cnn"))
    loaded, cameras = explain.model_inputs(model, pair)
    assert torch.equal(images, loaded)
    stage = explain.stages(model, "transformer", images[:1])["after HTM 1"]
    first, second = [0], [1]
    for this, other in ((first, second), (second, first)):
        target = explain.similarity_targets(model, images[other], cameras[other])
        expected = explain.gradcam(model, stage, images[this], target, cameras[this])
        torch.testing.assert_close(cam[this], expected, atol=1e-4, rtol=1e-3)


def test_attention_of_a_pair_is_the_mean_or_one_head(rankings):
    model = rankings.model
    pair = [rankings.dataset.query[0], rankings.dataset.gallery[7]]
    stage = "transformer", "after HTM 1"
    unit = 2, "mfu", "cnn"
    images, cameras = explain.model_inputs(model, pair)
    with torch.no_grad(), explain.record_attention(model) as weights:
        model.embed(images, cameras)
    _, _, mean = pair_maps(model, pair, stage, unit)
    torch.testing.assert_close(mean, weights[unit].mean(dim=1))
    _, _, second = pair_maps(model, pair, stage, unit, head=2)
    torch.testing.assert_close(second, weights[unit][:, 1])
    _, _, without = pair_maps(model, pair, stage, unit, use_cameras=False)
    assert not torch.equal(without, mean)
