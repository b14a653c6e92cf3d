"""Features of a split, the six and all together, and embedding of files."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fusionreid import build_model, evaluate_ranking
from fusionreid.config import PAPER, profile
from fusionreid.data import load_images, normalise
from fusionreid.evaluation.evaluate import camera_choices, cross_domain, evaluate, retrieve

MODEL = profile("smoke").scale(PAPER)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


def test_retrieval_is_the_model_image_by_image(model, tiny_dataset, tmp_path):
    retrieval = retrieve(model, tiny_dataset, cache_directory=tmp_path, batch_size=5)
    assert list(retrieval.gallery_features) == list(model.widths)
    vectors = retrieval.select("all")[1]
    identities, cameras = retrieval.gallery
    for index in (0, 7, 23):
        record = tiny_dataset.gallery[index]
        with torch.no_grad():
            images = normalise(load_images([record.path], MODEL.image_size))
            vector = model.embed(images, torch.tensor([record.camera]))[0]
        assert np.allclose(
            vectors[index], torch.nn.functional.normalize(vector, dim=0).numpy(), atol=1e-5
        )
        assert identities[index] == record.identity and cameras[index] == record.camera
    shown = retrieval.nearest("cnn", top=24)
    ranking = retrieval.rank("cnn")
    np.testing.assert_array_equal(shown.match.argmax(axis=1) + 1, ranking.first_match)
    with pytest.raises(ValueError, match="feature='head'.*'all', 'cnn'"):
        retrieval.select("head")


def test_all_and_each_feature_are_ranked(model, tiny_dataset, tmp_path):
    rankings = evaluate(model, tiny_dataset, cache_directory=tmp_path)
    assert list(rankings) == ["all", *model.widths]
    assert len({ranking.mAP for ranking in rankings.values()}) > 1
    assert set(rankings["all"].summary()) == {
        "mAP",
        "rank-1",
        "rank-5",
        "rank-10",
        "mINP",
        "mAP_trapezoid",
    }
    assert not model.training


def test_cross_domain_has_a_row_with_and_without_cameras(model, tiny_dataset, tmp_path):
    table = cross_domain(model, {"tiny": tiny_dataset}, cache_directory=tmp_path)
    assert table[["dataset", "camera embedding"]].values.tolist() == [
        ["tiny", True],
        ["tiny", False],
    ]
    assert table["mAP"].between(0, 1).all() and table["mAP"].nunique() == 2
    cnn = build_model(replace(MODEL, transformer=None, fusion=None), 4, num_cameras=3)
    table = cross_domain(cnn, {"tiny": tiny_dataset}, cache_directory=tmp_path)
    assert table["camera embedding"].tolist() == [False], "a CNN has no camera embedding"


def test_a_set_without_cameras_is_scored_without_the_rule(model, tiny_dataset, tmp_path):
    splits = {}
    for split, records in tiny_dataset.splits.items():
        splits[split] = [record._replace(camera=-1) for record in records]
    unknown = replace(tiny_dataset, **splits)
    assert unknown.num_cameras == 0
    table = cross_domain(model, {"mine": unknown}, cache_directory=tmp_path)
    assert table["camera embedding"].tolist() == [False]
    retrieval = retrieve(model, tiny_dataset, cache_directory=tmp_path, use_cameras=False)
    labels = retrieval.query.ids, retrieval.gallery.ids
    expected = evaluate_ranking(*retrieval.select(), *labels, None, None)
    assert table.loc[0, "mAP"] == pytest.approx(expected.mAP)
    alone = evaluate(model, unknown, cache_directory=tmp_path)["cnn"]
    assert alone.mAP == pytest.approx(
        evaluate_ranking(*retrieval.select("cnn"), *labels, None, None).mAP
    )


def test_the_choice_of_camera_is_measured(model, tiny_dataset, tmp_path):
    kept = model.branches["transformer"].camera_embedding.detach().clone()
    table = camera_choices(model, tiny_dataset, cache_directory=tmp_path).set_index("camera")
    assert list(table.index) == ["its own", "none", "the mean", "a wrong one"]
    plain = cross_domain(model, {"tiny": tiny_dataset}, cache_directory=tmp_path).set_index(
        "camera embedding"
    )
    assert (
        table.loc["its own", "mAP"] == plain.loc[True, "mAP"]
        and table.loc["none", "mAP"] == plain.loc[False, "mAP"]
    )
    assert table["mAP"].between(0, 1).all() and table.drop(index="the mean")["mAP"].nunique() == 3
    assert torch.equal(model.branches["transformer"].camera_embedding, kept), (
        "the model is as it was"
    )
    with pytest.raises(ValueError, match="expected a model with a camera embedding"):
        camera_choices(build_model(MODEL, 4), tiny_dataset, cache_directory=tmp_path)


def test_public_names():
    import fusionreid

    assert fusionreid.evaluate_ranking is evaluate_ranking
    assert set(fusionreid.__all__) >= {
        "ModelConfig",
        "FusionConfig",
        "PAPER",
        "RELEASED",
        "build_model",
        "evaluate_ranking",
        "k_reciprocal",
        "embed",
    }
