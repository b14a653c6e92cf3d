"""Features of a split, the six and all together, embedding of files, and the baselines."""

import fusionreid.evaluate as evaluate_module
import numpy as np
import pytest
import torch

from fusionreid import build_model, embed, evaluate_ranking
from fusionreid.config import PAPER, profile
from fusionreid.data import ImageCache, normalise
from fusionreid.evaluation.baselines import histogram, rank_by_histogram, rank_untrained
from fusionreid.evaluation.evaluate import cross_domain, evaluate, extract, extract_to_store, summary

RUN = profile("smoke").run(PAPER)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(RUN.model, 4, 6).eval()


def test_extract_is_the_model_image_by_image(model, tiny_dataset, tmp_path):
    cache = ImageCache(tiny_dataset.gallery, RUN.model.image_size, tmp_path, progress=False)
    features = extract(model, tiny_dataset.gallery, cache, batch_size=5)
    assert list(features.features) == list(model.widths)
    for index in (0, 7, 23):
        record = tiny_dataset.gallery[index]
        with torch.no_grad():
            vector = model.embed(normalise(cache.batch([index])), torch.tensor([record.camera]))[0]
        expected = torch.nn.functional.normalize(vector, dim=0).numpy()
        assert np.allclose(features.get("all")[index], expected, atol=1e-5)
        assert features.identities[index] == record.identity and features.cameras[index] == record.camera


def test_a_store_holds_the_same_and_resumes(model, tiny_dataset, tmp_path, monkeypatch):
    split = tiny_dataset.gallery
    cache = ImageCache(split, RUN.model.image_size, tmp_path, progress=False)
    expected = extract(model, split, cache, batch_size=5).get("all")
    calls = []

    def forward(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    real = evaluate_module._forward
    monkeypatch.setattr(evaluate_module, "_forward", forward)
    with pytest.raises(KeyboardInterrupt):
        extract_to_store(tmp_path / "store", model, split, cache, batch_size=5)
    store = extract_to_store(tmp_path / "store", model, split, cache, batch_size=5)
    assert calls == [5, 5, 5, 5, 5, 5, 4], "the first batch was kept; the second was not taken yet"
    assert store.complete and np.allclose(store.features, expected, atol=1e-6)
    assert list(store.identities) == [record.identity for record in split]
    with torch.no_grad():
        model.heads["cnn"].neck.weight.add_(1)
    assert extract_to_store(tmp_path / "store", model, split, cache).fingerprint != store.fingerprint


def test_all_and_each_feature_are_ranked(model, tiny_dataset, tmp_path):
    rankings = evaluate(model, tiny_dataset, cache_directory=tmp_path)
    assert list(rankings) == ["all", *model.widths]
    assert len({ranking.mAP for ranking in rankings.values()}) > 1
    assert set(summary(rankings["all"])) == {"mAP", "rank-1", "rank-5", "rank-10", "mINP", "mAP_trapezoid"}
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
    with pytest.raises(ValueError, match="empty.jpg: expected an image, found 0 bytes"):
        embed(model, [tmp_path / "empty.jpg"])
    with pytest.raises(TypeError, match="found one path"):
        embed(model, str(tiny_dataset.query[0].path))
    with pytest.raises(TypeError, match="found a list of {'Tensor'}"):
        embed(model, [torch.zeros(3, 64, 32, dtype=torch.uint8)])
    with pytest.raises(TypeError, match="expected uint8"):
        embed(model, np.zeros((1, 3, 64, 32), np.float32))
    with pytest.raises(ValueError, match="cameras: expected 2"):
        embed(model, [record.path for record in tiny_dataset.query[:2]], [0])


def test_cross_domain_has_a_row_with_and_without_cameras(model, tiny_dataset, tmp_path):
    table = cross_domain(model, {"tiny": tiny_dataset}, cache_directory=tmp_path)
    assert table[["dataset", "camera embedding"]].values.tolist() == [["tiny", True], ["tiny", False]]
    assert table["mAP"].between(0, 1).all() and table["mAP"].nunique() == 2


def test_histogram_is_the_slow_loop():
    images = np.random.default_rng(0).integers(0, 256, (2, 12, 4, 3), dtype=np.uint8)
    vectors = histogram(images, bins=4, stripes=3).reshape(2, 3, 3, 4)
    for n in range(2):
        counts = np.zeros((3, 3, 4))
        for y in range(12):
            for x in range(4):
                for channel in range(3):
                    counts[y // 4, channel, images[n, y, x, channel] // 64] += 1
        expected = np.sqrt(counts / 16)
        assert np.allclose(vectors[n], expected / np.linalg.norm(expected), atol=1e-6)


def test_baselines(tiny_dataset, tmp_path):
    assert rank_by_histogram(tiny_dataset, RUN.model.image_size, tmp_path).mAP > 0.9  # its people differ by colour
    assert 0 < rank_untrained(RUN, tiny_dataset, tmp_path).mAP <= 1


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
