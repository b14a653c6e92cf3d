"""The feature store: resumes, refuses what does not fit, and ranks like an array."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fusionreid.evaluation.features import FeatureStore
from fusionreid.evaluation.metrics import evaluate_ranking


def new(path, fingerprint="model-a", count=10, width=4, **changes):
    arguments = dict(
        identities=np.arange(count) % 3,
        cameras=np.arange(count) % 2,
        paths=[f"image_{row}.jpg" for row in range(count)],
    )
    return FeatureStore.create(path, count, width, fingerprint, **{**arguments, **changes})


@pytest.fixture
def rows():
    return np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def test_is_written_resumed_and_read(tmp_path, rows):
    store = new(tmp_path / "gallery")
    assert (store.done, store.complete, len(store)) == (0, False, 10)
    store.append(rows[:3])
    store.append(torch.from_numpy(rows[3:6]).requires_grad_())
    with pytest.raises(ValueError, match="expected 10 rows of features, found 6"):
        store.features  # noqa: B018
    del store
    resumed = new(tmp_path / "gallery")
    assert resumed.done == 6
    resumed.write(resumed.done, rows[6:])
    read = FeatureStore.open(tmp_path / "gallery", fingerprint="model-a")
    assert read.complete
    np.testing.assert_array_equal(read.features, rows)
    np.testing.assert_array_equal(read.identities, np.arange(10) % 3)
    np.testing.assert_array_equal(read.cameras, np.arange(10) % 2)
    assert read.paths[7] == "image_7.jpg"
    assert isinstance(read.features, np.memmap) and not read.features.flags.writeable
    with pytest.raises(ValueError, match="opened for reading"):
        read.write(0, rows)
    assert new(tmp_path / "gallery").complete


@pytest.mark.parametrize(
    "changes",
    [dict(fingerprint="model-b"), dict(width=5), dict(dtype="float16"), dict(cameras=np.zeros(10)), dict(paths=[])],
)
def test_another_model_or_split_begins_anew(tmp_path, rows, changes):
    new(tmp_path / "store").append(rows)
    assert new(tmp_path / "store").complete
    store = new(tmp_path / "store", **changes)
    assert store.done == 0
    with pytest.raises(ValueError, match="found 0"):
        FeatureStore.open(tmp_path / "store").features  # noqa: B018


def test_an_interrupted_creation_begins_anew(tmp_path, rows):
    new(tmp_path / "store").append(rows)
    (tmp_path / "store" / "store.json").unlink()
    assert new(tmp_path / "store").done == 0


def test_half_precision(tmp_path, rows):
    store = new(tmp_path / "store", dtype="float16")
    store.append(rows)
    np.testing.assert_array_equal(store.features, rows.astype(np.float16))
    with pytest.raises(ValueError, match="float16 can hold.*row 1"):
        store.write(0, np.array([[1, 1, 1, 1], [1, 1, 1, 1e6]]))


def test_writing_is_checked(tmp_path, rows):
    store = new(tmp_path / "store")
    with pytest.raises(ValueError, match="found 2 to 12"):
        store.write(2, rows)
    store.append(rows[:5])
    with pytest.raises(ValueError, match="rows from 0 to 5 on, up to 10, found 5 to 15"):
        store.append(rows)
    with pytest.raises(ValueError, match=r"\(rows, 4\), found \(10, 3\)"):
        store.append(rows[:, :3])
    with pytest.raises(ValueError, match="finite.*row 5"):
        store.append(np.full((1, 4), np.nan))
    store.write(2, rows[2:4])  # again: nothing is lost
    assert store.done == 5


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(identities=[1, 2]), "identities: expected 10"),
        (dict(paths=["a"]), "paths: expected 10"),
        (dict(dtype="int8"), "float32.*float16"),
        (dict(width=0), "width=0"),
    ],
)
def test_creation_is_checked(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        new(tmp_path / "store", **changes)


def test_damage_is_named(tmp_path, rows):
    with pytest.raises(FileNotFoundError, match="no feature store here"):
        FeatureStore.open(tmp_path / "nothing")
    path = tmp_path / "store"
    new(path).append(rows)
    with pytest.raises(ValueError, match="expected features of the model model-b, found those of model-a"):
        FeatureStore.open(path, fingerprint="model-b")
    header = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({"count": 3}))
    with pytest.raises(ValueError, match="store.json.*fingerprint"):
        FeatureStore.open(path)
    (path / "store.json").write_text(json.dumps(header))
    content = (path / "features.npy").read_bytes()
    (path / "features.npy").write_bytes(content[:200])
    with pytest.raises(ValueError, match="features.npy.*damaged"):
        FeatureStore.open(path)
    (path / "features.npy").unlink()
    with pytest.raises(ValueError, match="features.npy.*no file"):
        FeatureStore.open(path)
    (path / "features.npy").write_bytes(content)
    (path / "labels.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="labels.npz"):
        FeatureStore.open(path)
    np.savez(path / "labels.npz", identities=np.zeros(10), cameras=np.zeros(10), paths=np.array([""]))
    with pytest.raises(ValueError, match="labels.npz.*found others"):
        FeatureStore.open(path)


def test_ranks_like_an_array(tmp_path):
    rng = np.random.default_rng(1)
    query, gallery = (rng.standard_normal((count, 8)).astype(np.float32) for count in (20, 200))
    labels = [rng.integers(0, 9, 20), rng.integers(0, 9, 200), rng.integers(0, 3, 20), rng.integers(0, 3, 200)]
    stores = []
    for name, values, identities, cameras in (("q", query, *labels[::2]), ("g", gallery, *labels[1::2])):
        store = FeatureStore.create(tmp_path / name, *values.shape, "m", identities=identities, cameras=cameras)
        store.append(values)
        stores.append(FeatureStore.open(tmp_path / name))
    q, g = stores
    for rerank in (None, dict(k1=5, k2=2)):
        ranking = evaluate_ranking(
            q, g, q.identities, g.identities, q.cameras, g.cameras, rerank=rerank, gallery_block=64
        )
        expected = evaluate_ranking(query, gallery, *labels, rerank=rerank)
        np.testing.assert_allclose(ranking.average_precision, expected.average_precision, atol=1e-9)
