"""Weights of our own: made from other people, written, found and loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fusionreid import paths, pretrain
from fusionreid.config import PAPER, profile
from fusionreid.data.synthetic.build import SIZES
from fusionreid.evaluation.evaluate import evaluate
from fusionreid.models.fusionreid import build_model
from fusionreid.models.pretrained import load_weights
from fusionreid.training.runs import RunFolder, make_run
from fusionreid.training.train import train

DEMO = profile("demo")


def test_every_stand_in_has_a_recipe():
    assert set(pretrain.RECIPES) == set(DEMO.backbones.values())
    with pytest.raises(ValueError, match="stand-in='resnet50' is not known"):
        pretrain.run_of("resnet50")


def test_its_people_are_in_no_other_set():
    assert pretrain.PEOPLE.seed not in range(100) and pretrain.PEOPLE.size == "pretrain"
    assert SIZES["pretrain"].image == DEMO.scale(PAPER).image_size


@pytest.mark.parametrize("name", pretrain.RECIPES)
def test_committed_weights_are_of_the_recipe(name):
    file = paths.WEIGHTS / f"{name}.safetensors"
    with safe_open(file, "pt") as found:
        about = json.loads(found.metadata()["about"])
    assert about["run"] == json.loads(json.dumps(pretrain.run_of(name).describe()))
    assert about["command"] == f"python -m fusionreid pretrain {name}"
    assert 0.1 < about["result"]["features"]["all"]["mAP"] < 1


def test_committed_weights_are_small():
    sizes = {file.stem: file.stat().st_size for file in paths.WEIGHTS.glob("*.safetensors")}
    assert sum(sizes[name] for name in pretrain.RECIPES) < 8e6 and sum(sizes.values()) < 12e6


@pytest.mark.parametrize("backbone", DEMO.backbones)
def test_the_demo_starts_from_them(backbone):
    branch = "cnn" if "resnet" in backbone else "transformer"
    config = replace(PAPER, image_size=(384, 128), **{branch: backbone})
    run = make_run(DEMO, config)
    start = getattr(run, f"{branch}_start")
    assert (
        start.source == str(paths.WEIGHTS / f"{DEMO.backbones[backbone]}.safetensors")
        and start.version
    )
    model = build_model(run.model, 5, 2)
    report = load_weights(model, **{branch: start.source})[branch]
    assert not report.random and not report.unused
    tensors, own = load_file(start.source), model.branches[branch].base.state_dict()
    kept = [name for name in own if name in report.loaded]
    assert (
        len(kept) >= len(own) - 1
    )  # all but the positions of a Transformer, which the larger image resizes
    for name in kept:
        torch.testing.assert_close(own[name], tensors[name].to(own[name].dtype))


def test_a_small_one_end_to_end(tmp_path, monkeypatch, tiny_dataset):
    def train_all(runs, runs_root, data_root):
        for run in runs.values():
            train(
                run,
                evaluate,
                dataset=tiny_dataset,
                data_root=data_root,
                runs_root=runs_root,
                progress=False,
            )

    short = replace(profile("smoke").train, epochs=1, warmup_epochs=0)
    monkeypatch.setattr(pretrain, "RECIPES", {"test_vit_small": short})
    monkeypatch.setattr(pretrain, "train_missing", train_all)
    where = {"folder": tmp_path / "weights", "runs_root": tmp_path / "runs", "data_root": tmp_path}
    (file,) = pretrain.pretrain(["test_vit_small"], **where)
    branch = (
        RunFolder(pretrain.run_of("test_vit_small"), tmp_path / "runs")
        .model()
        .branches["transformer"]
    )
    written = load_file(file)
    assert set(written) == set(branch.base.state_dict())
    for name, tensor in branch.base.state_dict().items():
        torch.testing.assert_close(written[name].to(tensor.dtype), tensor, atol=1e-3, rtol=1e-3)
