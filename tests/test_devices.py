"""The same numbers on every device: with a GPU these tests try it, without one the CPU alone."""

import subprocess
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from fusionreid import build_model, embed, evaluate_ranking, k_reciprocal
from fusionreid.config import PAPER, profile
from fusionreid.data import ImageCache, normalise, prefetch
from fusionreid.devices import device_name, environment, git_commit, one_thread
from fusionreid.evaluation.evaluate import evaluate
from fusionreid.training.runs import make_run
from fusionreid.training.train import train

DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
SMOKE = profile("smoke")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_training_in_every_precision(tiny_dataset, tmp_path, device, precision):
    run = make_run(SMOKE, data=replace(SMOKE.data, version="tiny"))
    run = replace(run, train=replace(SMOKE.train, precision=precision))
    options = dict(data_root=tmp_path, runs_root=tmp_path, device=device, progress=False)
    folder = train(run, dataset=tiny_dataset, **options)
    assert 0 < folder.result["features"]["all"]["mAP"] <= 1
    losses = folder.metrics.query("kind == 'step'")["loss"]
    assert len(losses) and np.isfinite(losses).all()


@pytest.mark.parametrize("device", DEVICES)
def test_batches_reach_the_device(tiny_dataset, tmp_path, device):
    cache = ImageCache(tiny_dataset.train, (64, 32), tmp_path, progress=False)
    for indices, images in prefetch(cache, [[3, 1], [0, 2], [5, 4]], device):
        assert images.device.type == device
        assert torch.equal(normalise(images).cpu(), normalise(cache.batch(indices)))


@pytest.mark.parametrize("device", DEVICES)
def test_vectors(device):
    torch.manual_seed(0)
    model = build_model(SMOKE.scale(PAPER), 4, 6)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 32), dtype=np.uint8)
    expected = embed(model, images, [0, 1, 2, -1, 5])
    assert np.allclose(
        embed(model.to(device), images, [0, 1, 2, -1, 5]), expected, atol=2e-3
    )  # TensorFloat-32


@pytest.mark.parametrize("device", DEVICES)
def test_evaluation_of_a_data_set(tiny_dataset, tmp_path, device):
    torch.manual_seed(0)
    model = build_model(SMOKE.scale(PAPER), 4, 6)
    options = dict(cache_directory=tmp_path, features=("all", "cnn"))
    expected = evaluate(model, tiny_dataset, **options)
    found = evaluate(model.to(device), tiny_dataset, **options)
    assert list(found) == ["all", "cnn"]
    for name, ranking in expected.items():
        assert found[name].mAP == pytest.approx(ranking.mAP, abs=0.05 if device == "cuda" else 1e-9)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rerank", [None, True])
def test_ranking(device, rerank):
    random = np.random.default_rng(0)
    features = random.integers(-3, 4, (300, 8)).astype(np.float32)  # with ties
    labels = [random.integers(0, most, count) for most in (20, 4) for count in (60, 240)]
    expected = evaluate_ranking(features[:60], features[60:], *labels, rerank=rerank)
    query, gallery = torch.from_numpy(features).to(device).split([60, 240])
    for found in (
        evaluate_ranking(query, gallery, *labels, rerank=rerank),
        evaluate_ranking(features[:60], features[60:], *labels, rerank=rerank, device=device),
    ):
        assert found.mAP == pytest.approx(expected.mAP, abs=1e-9 if rerank is None else 1e-4)
        assert np.allclose(found.cmc, expected.cmc, atol=1e-9 if rerank is None else 0.02)
    distances = k_reciprocal(query, gallery), k_reciprocal(features[:60], features[60:])
    assert np.allclose(*distances, atol=1e-4)


def test_one_thread_on_a_cpu():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), one_thread("cpu") as threads:
            assert (threads, torch.get_num_threads()) == (2, 1)
            raise KeyError
        assert torch.get_num_threads() == 2
        with one_thread("cuda"):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_a_run_says_of_its_machine():
    cpu = torch.device("cpu")
    found = environment(cpu, processes=2)
    assert (found["device"], found["processes"]) == (device_name(cpu), 2)
    assert found["device"].endswith(f", {torch.get_num_threads()} threads")
    assert found["torch"] == version("torch")


def test_the_commit_is_marked_where_files_differ_from_it(tmp_path, monkeypatch):
    package = tmp_path / "fusionreid"
    package.mkdir()
    monkeypatch.setattr("fusionreid.devices.PACKAGE", package)
    assert git_commit() == ""  # no checkout
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "other.py").touch()
    (package / "devices.py").write_text("1")
    commit = ["commit", "-q", "-m", "one"]
    for command in (["init", "-q"], ["add", "other.py"], commit):
        subprocess.run([*git, *command], check=True)
    assert git_commit() == "", "the repository is another's: it does not have this file"
    for command in (["add", "."], commit):
        subprocess.run([*git, *command], check=True)
    clean = git_commit()
    assert len(clean) == 10
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a").touch()  # beside the package
    assert git_commit() == clean
    (package / "devices.py").write_text("2")
    assert git_commit() == f"{clean}+"
