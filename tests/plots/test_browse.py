"""Rankings by every switch are those of the evaluation, lists those of the rankings, and maps those of `explain`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionreid import PAPER, build_model
from fusionreid.config import PROFILES
from fusionreid.evaluation import explain
from fusionreid.evaluation.evaluate import retrieve
from fusionreid.plots.browse import Rankings, Switches, pair_maps


@pytest.fixture(scope="module")
def rankings(tiny_dataset, tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(PROFILES["smoke"].scale(PAPER), num_classes=4, num_cameras=6).eval()
    torch.nn.init.normal_(
        model.branches["transformer"].camera_embedding
    )  # or it would change nothing
    return Rankings(model, tiny_dataset, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("feature", ["all", "cnn", "transformer_fused"])
@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("weight", [1.0, 0.3, 0.0])
def test_a_ranking_is_that_of_the_evaluation(rankings, tmp_path, feature, cameras, weight):
    retrieval = retrieve(
        rankings.model, rankings.dataset, cache_directory=tmp_path, use_cameras=cameras
    )
    expected = retrieval.rank(feature, rerank=None if weight == 1 else {"weight": weight})
    found = rankings.ranking(Switches(feature, cameras, weight))
    np.testing.assert_allclose(found.average_precision, expected.average_precision)
    np.testing.assert_array_equal(found.first_match, expected.first_match)


def test_every_switch_changes_the_distances(rankings):
    each = [
        rankings.distances(s)
        for s in (Switches(), Switches("cnn"), Switches(cameras=False), Switches(weight=0.3))
    ]
    assert all(not np.array_equal(each[0], other) for other in each[1:])
    assert rankings.ranking(Switches()) is rankings.ranking(Switches()), "not kept"


@pytest.mark.parametrize("switches", [Switches(), Switches("cnn", False, 0.3)])
def test_a_list_is_that_of_nearest(rankings, switches):
    retrieval = rankings.retrieval[switches.cameras]
    rerank = None if switches.weight == 1 else {"weight": switches.weight}
    count = len(rankings.dataset.gallery)
    expected = retrieval.nearest(switches.feature, top=count, rerank=rerank)
    query, gallery = retrieval.select(switches.feature)
    for q in range(len(rankings.dataset.query)):
        found, similarity = rankings.listed(q, switches)
        kept = expected.gallery[q] >= 0
        np.testing.assert_array_equal(found.gallery[0], expected.gallery[q][kept])
        np.testing.assert_array_equal(found.match[0], expected.match[q][kept])
        np.testing.assert_allclose(similarity, gallery[found.gallery[0]] @ query[q], atol=1e-5)


def test_a_list_holds_only_what_is_asked_for_in_the_same_order(rankings):
    whole = rankings.listed(2, Switches())[0].gallery[0]
    among = np.arange(len(rankings.dataset.gallery)) % 3 == 0
    assert rankings.listed(2, Switches(), among)[0].gallery[0].tolist() == [
        g for g in whole if among[g]
    ]
    assert not rankings.listed(2, Switches(), np.zeros_like(among))[0].gallery.size


def test_maps_of_a_pair_are_each_ones_toward_the_other(rankings):
    model, pair = rankings.model, (rankings.dataset.query[0], rankings.dataset.gallery[7])
    stage, unit = ("transformer", "after HTM 1"), (2, "mfu", "cnn")
    images, cam, attention = pair_maps(model, pair, stage, unit)
    loaded, cameras = explain.load(model, pair)
    assert torch.equal(images, loaded)
    for side in (0, 1):
        one, other = (slice(place, place + 1) for place in (side, 1 - side))
        target = explain.similarity_targets(model, images[other], cameras[other])
        place = explain.stages(model, stage[0], images[:1])[stage[1]]
        expected = explain.gradcam(model, place, images[one], target, cameras[one])
        torch.testing.assert_close(cam[one], expected, atol=1e-4, rtol=1e-3)
    with torch.no_grad(), explain.record_attention(model) as weights:
        model.embed(images, cameras)
    torch.testing.assert_close(attention, weights[unit].mean(dim=1))
    torch.testing.assert_close(pair_maps(model, pair, stage, unit, head=2)[2], weights[unit][:, 1])
    assert not torch.equal(pair_maps(model, pair, stage, unit, use_cameras=False)[2], attention)
