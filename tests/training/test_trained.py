"""Trained models by name, and a run made one small file."""

import json
from dataclasses import replace

import pytest
import torch
from released_checkpoint import released_tensors
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fusionreid import build_model, load, paths
from fusionreid.config import PAPER, RELEASED, ModelConfig, profile
from fusionreid.evaluation.verification import Calibration
from fusionreid.models import checkpoints
from fusionreid.training import trained
from fusionreid.training.runs import make_run, with_versions
from fusionreid.training.train import starting_model

RUN = make_run("smoke")
MODEL = profile("smoke").scale(PAPER)
PIXELS = torch.linspace(-1, 1, 2 * 3 * 64 * 32).reshape(2, 3, 64, 32)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a finished run, and its model."""
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    folder = paths.RUNS / "0123456789ab"
    torch.manual_seed(0)
    model = build_model(MODEL, 4, 6).eval()
    checkpoints.save(folder / "checkpoint.safetensors", model, epoch=2)
    result = {
        "fingerprint": folder.name,
        "seed": 0,
        "epochs": 2,
        "commit": "abc",
        "device": "cpu",
        "seconds": 1.0,
    }
    result |= {"data": {"name": "synthetic", "version": "v3"}, "features": {"all": {"mAP": 0.5}}}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps({"fingerprint": folder.name, "seed": 0}))
    return folder, model


def same(model, other, **tolerance):
    with torch.no_grad():
        expected, found = (each.cpu().embed(PIXELS) for each in (model, other))
    assert not other.training
    torch.testing.assert_close(found, expected, **tolerance)


def test_a_run_is_loaded_by_folder_fingerprint_and_file(run, tmp_path, monkeypatch):
    folder, model = run
    for source in (
        folder,
        str(folder),
        folder.name,
        f"runs/{folder.name}",
        folder / "checkpoint.safetensors",
    ):
        same(model, load(source, "cpu"))
    monkeypatch.chdir(tmp_path)
    same(model, load(f"runs/{folder.name}", "cpu"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_an_authors_checkpoint_is_recognised(suffix, tmp_path):
    theirs = build_model(
        ModelConfig(cnn="resnet18", transformer=None, stem="released", image_size=(256, 128)), 4
    ).eval()
    path = tmp_path / f"theirs{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(released_tensors(theirs), path)
    found = load(path, "cpu")
    assert found.config.cnn == "resnet18" and found.config.stem == RELEASED.stem
    for name, tensor in checkpoints.tensors(theirs).items():
        torch.testing.assert_close(checkpoints.tensors(found)[name], tensor)


def test_a_run_becomes_one_small_file(run, tmp_path, monkeypatch):
    folder, model = run
    monkeypatch.setattr(trained.paths, "WEIGHTS", tmp_path / "weights")
    header = trained.publish(folder.name, trained.paths.WEIGHTS / "demo.safetensors")
    assert (
        header["result"]["features"]["all"]["mAP"] == 0.5
        and header["run"]["fingerprint"] == folder.name
    )
    path = trained.paths.WEIGHTS / "demo.safetensors"
    assert path.stat().st_size < 0.6 * (folder / "checkpoint.safetensors").stat().st_size
    found = load("demo", "cpu")
    assert (found.num_cameras, found.config) == (6, MODEL) and next(
        found.parameters()
    ).dtype == torch.float32
    same(model, found, atol=5e-3, rtol=5e-3)
    assert checkpoints.digest(found) == header["digest"] != checkpoints.digest(model)


def test_changed_weights_are_noticed(run, tmp_path):
    path = tmp_path / "demo.safetensors"
    trained.publish(run[0], path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["model/branches.cnn.pool.exponent"] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(
        ValueError, match="demo.safetensors: expected weights of digest [0-9a-f]{16}, found"
    ):
        load(path)


CALIBRATIONS = {True: Calibration(20.0, -15.0), False: Calibration(10.0, -7.5)}


def test_calibrations_lie_beside_the_checkpoint(run, tmp_path):
    folder, model = run
    assert trained.read_calibrations(folder, model) == {}
    file = trained.write_calibrations(folder.name, model, "synthetic v3", CALIBRATIONS)
    assert file == folder / "checkpoint.calibration.json"
    assert json.loads(file.read_text())["data"] == "synthetic v3"
    for source in (folder.name, folder, folder / "checkpoint.safetensors"):
        assert trained.read_calibrations(source, model) == CALIBRATIONS
    (tmp_path / "theirs.pth").touch()
    file = trained.write_calibrations(tmp_path / "theirs.pth", model, "", CALIBRATIONS)
    assert file == tmp_path / "theirs.calibration.json"


def test_a_calibration_of_another_model_or_damaged_is_named(run):
    folder, model = run
    file = trained.write_calibrations(folder, model, "", CALIBRATIONS)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(
        ValueError, match="calibration.json: expected the calibration of a model of"
    ):
        trained.read_calibrations(folder, model)
    for text in ('{"digest": "0"}', "[]", '{"digest": "0", "with cameras": {"slope": 1}}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="calibration.json: expected a calibration, found"):
            trained.read_calibrations(folder, model)


def test_the_demo_has_a_calibration_of_its_weights():
    """Made by `fusionreid verify demo --calibrate`."""
    kept = trained.read_calibrations("demo", load("demo", "cpu"))
    assert set(kept) == {True, False}
    for calibration in kept.values():
        unlike, like = calibration.probability([0.89, 0.97])
        assert unlike < 0.02 and like > 0.9


def test_what_cannot_be_loaded_says_why(run, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"model 'nothing': expected 'demo', a run .* has 1 runs"
    ):
        load("nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match="empty': expected 'demo', a run with a checkpoint .* found no such"
    ):
        load(tmp_path / "empty")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth"):
        load(tmp_path / "text.pth")
    (tmp_path / "half.safetensors").write_bytes(
        (run[0] / "checkpoint.safetensors").read_bytes()[:9000]
    )
    with pytest.raises(ValueError, match="half.safetensors"):
        load(tmp_path / "half.safetensors")


def test_what_cannot_be_published_says_why(run, tmp_path):
    folder, model = run
    with pytest.raises(FileNotFoundError, match="expected the folder of a finished run"):
        trained.publish(folder / "checkpoint.safetensors", tmp_path / "out.safetensors")
    with torch.no_grad():
        model.necks["cnn"].norm.running_var.fill_(1e6)
    checkpoints.save(folder / "checkpoint.safetensors", model)
    with pytest.raises(ValueError, match="too large for float16 in necks.cnn.norm.running_var"):
        trained.publish(folder, tmp_path / "out.safetensors")
    (folder / "result.json").unlink()
    with pytest.raises(FileNotFoundError, match="found no result.json; train it first"):
        trained.publish(folder, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_weights_of_another_digest_are_refused(tmp_path):
    model = build_model(profile("smoke").scale(PAPER), 4, 6)
    checkpoints.save(tmp_path / "one.safetensors", model, digest=checkpoints.digest(model))
    assert checkpoints.digest(
        trained.load(tmp_path / "one.safetensors", "cpu")
    ) == checkpoints.digest(model)
    checkpoints.save(tmp_path / "two.safetensors", model, digest="0" * 16)
    with pytest.raises(
        ValueError,
        match=r"two\.safetensors: expected weights of digest 0{16}, found [0-9a-f]{16}; fetch",
    ):
        trained.load(tmp_path / "two.safetensors", "cpu")


def test_a_run_starts_from_all_of_a_trained_model(run, tmp_path):
    folder, model = run
    new = make_run("demo", data=replace(RUN.data, name="mine"))
    tuned = trained.fine_tuned(new, folder)
    assert (tuned.model, tuned.data, tuned.train) == (MODEL, new.data, new.train)
    versions = [with_versions(trained.fine_tuned(RUN, source)) for source in (folder, folder.name)]
    assert versions[0] == versions[1] and versions[0].fingerprint != RUN.fingerprint
    start = versions[0].to_dict()["cnn_start"]
    assert start == f"all of checkpoint.safetensors:{versions[0].cnn_start.version}"
    before = versions[0].fingerprint
    with torch.no_grad():
        model.necks["cnn"].classifier.weight.add_(1)
    checkpoints.save(folder / "checkpoint.safetensors", model, epoch=2)
    assert with_versions(trained.fine_tuned(RUN, folder)).fingerprint != before
    with pytest.raises(FileNotFoundError, match="model 'nowhere': expected 'demo', a run"):
        trained.fine_tuned(RUN, "nowhere")


def test_all_but_classifiers_and_cameras_is_taken(run):
    folder, model = run
    started, report = starting_model(trained.fine_tuned(RUN, folder), 9, 2)
    assert (started.num_classes, started.num_cameras) == (9, 2)
    old, new = (checkpoints.tensors(each) for each in (model, started))
    differing = {name for name in new if new[name].shape != old[name].shape}
    assert differing == {name for name in new if "classifier" in name or "camera" in name}
    assert all(torch.equal(new[name], old[name]) for name in new.keys() - differing)
    assert report == (
        f"{folder / 'checkpoint.safetensors'}: {len(new) - 7} tensors taken; "
        "new: 6 classifiers of 9 people, camera embedding of 2 cameras"
    )
    with pytest.raises(ValueError, match="0123456789ab: does not fit the model"):
        trained.take_weights(build_model(profile("demo").scale(PAPER), 4), folder)
