"""Features of a split, the six and all together, and embedding of files."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fusionreid import build_model, embed, evaluate_ranking
from fusionreid.config import PAPER, profile
from fusionreid.data import ImageCache, load_images, normalise
from fusionreid.evaluation import evaluate as evaluate_module
from fusionreid.evaluation.evaluate import cross_domain, evaluate, extract_to_file, rank, retrieve
from fusionreid.evaluation.metrics import nearest

MODEL = profile("smoke").scale(PAPER)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


def test_retrieval_is_the_model_image_by_image(model, tiny_dataset, tmp_path):
    retrieval = retrieve(model, tiny_dataset, cache_directory=tmp_path, batch_size=5)
    assert list(retrieval.gallery_features) == list(model.widths)
    _, vectors, _, identities, _, cameras = retrieval.select("all")
    for index in (0, 7, 23):
        record = tiny_dataset.gallery[index]
        with torch.no_grad():
            images = normalise(load_images([record.path], MODEL.image_size))
            vector = model.embed(images, torch.tensor([record.camera]))[0]
        assert np.allclose(vectors[index], torch.nn.functional.normalize(vector, dim=0).numpy(), atol=1e-5)
        assert identities[index] == record.identity and cameras[index] == record.camera
    shown, ranking = nearest(retrieval.select("cnn"), top=24), rank(retrieval, "cnn")
    np.testing.assert_array_equal(shown.match.argmax(axis=1) + 1, ranking.first_match)
    with pytest.raises(ValueError, match="feature='head'.*'all', 'cnn'"):
        retrieval.select("head")


def vectors_of(model, dataset, folder, **options):
    """Query and gallery vectors, all features side by side, and their labels."""
    return retrieve(model, dataset, cache_directory=folder, **options).select("all")


def test_features_on_disk_are_the_same_and_resume(model, tiny_dataset, tmp_path, monkeypatch):
    split = tiny_dataset.gallery
    cache = ImageCache(split, MODEL.image_size, tmp_path, progress=False)
    query, expected, *labels = vectors_of(model, tiny_dataset, tmp_path)
    calls, real = [], evaluate_module._vectors

    def vectors(model, images, *rest):
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(model, images, *rest)

    monkeypatch.setattr(evaluate_module, "_vectors", vectors)
    with pytest.raises(KeyboardInterrupt):
        extract_to_file(tmp_path / "all", model, split, cache, batch_size=5)
    found = extract_to_file(tmp_path / "all", model, split, cache, batch_size=5)
    assert calls == [5, 5, 5, 5, 5, 4], "two batches were kept"
    assert isinstance(found, np.memmap) and not found.flags.writeable
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert evaluate_ranking(query, found, *labels).mAP == pytest.approx(evaluate_ranking(query, expected, *labels).mAP)
    calls.clear()
    extract_to_file(tmp_path / "all", model, split, cache)
    assert calls == [], "all of it is there"


@pytest.mark.parametrize("changed", ["model", "images", "options"])
def test_features_on_disk_of_something_else_begin_anew(changed, model, tiny_dataset, tmp_path):
    other, split, options = copy.deepcopy(model), tiny_dataset.gallery, {}
    cache = ImageCache(split, MODEL.image_size, tmp_path, progress=False)
    extract_to_file(tmp_path / "all", model, split, cache)
    if changed == "model":
        with torch.no_grad():
            next(other.parameters()).add_(0.1)
    elif changed == "images":
        split = split[:20]
        cache = ImageCache(split, MODEL.image_size, tmp_path, progress=False)
    else:
        options = {"use_cameras": False}
    found = extract_to_file(tmp_path / "all", other, split, cache, **options)
    expected = vectors_of(other, replace(tiny_dataset, gallery=split), tmp_path, **options)[1]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_all_and_each_feature_are_ranked(model, tiny_dataset, tmp_path):
    rankings = evaluate(model, tiny_dataset, cache_directory=tmp_path)
    assert list(rankings) == ["all", *model.widths]
    assert len({ranking.mAP for ranking in rankings.values()}) > 1
    assert set(rankings["all"].summary()) == {"mAP", "rank-1", "rank-5", "rank-10", "mINP", "mAP_trapezoid"}
    assert not model.training


def test_embed_paths_and_arrays(model, tiny_dataset):
    paths = [record.path for record in tiny_dataset.query[:5]]
    cameras = [record.camera for record in tiny_dataset.query[:5]]
    vectors = embed(model, paths, cameras)
    assert vectors.shape == (5, sum(model.widths.values())) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(embed(model, paths[2:3], cameras[2:3])[0], vectors[2], atol=1e-5)
    assert not np.allclose(embed(model, paths), vectors, atol=1e-3)  # unseen cameras
    assert embed(model, []).shape == (0, vectors.shape[1])


def test_wrong_images_to_embed(model, tiny_dataset, tmp_path):
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="empty.jpg: expected an image"):
        embed(model, [tmp_path / "empty.jpg"])
    with pytest.raises(TypeError, match="expected a list of paths"):
        embed(model, str(tiny_dataset.query[0].path))
    with pytest.raises(TypeError, match="one array of images, found .tensor"):
        embed(model, [torch.zeros(3, 64, 32, dtype=torch.uint8)])
    with pytest.raises(TypeError, match="expected uint8"):
        embed(model, np.zeros((1, 3, 64, 32), np.float32))
    with pytest.raises(ValueError, match="cameras: expected 2"):
        embed(model, [record.path for record in tiny_dataset.query[:2]], [0])


def test_cross_domain_has_a_row_with_and_without_cameras(model, tiny_dataset, tmp_path):
    table = cross_domain(model, {"tiny": tiny_dataset}, cache_directory=tmp_path)
    assert table[["dataset", "camera embedding"]].values.tolist() == [["tiny", True], ["tiny", False]]
    assert table["mAP"].between(0, 1).all() and table["mAP"].nunique() == 2


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
