"""Weights of our own: made from other people, written, found and loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from fusionreid import paths, pretrain
from fusionreid.config import PAPER, profile
from fusionreid.data.synthetic.build import SIZES
from fusionreid.models.fusionreid import Output, build_model
from fusionreid.models.pretrained import load_weights
from fusionreid.training.losses import triplet
from fusionreid.training.runs import RunConfig, RunFolder, make_run, with_versions
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
    recipe = json.loads(json.dumps(pretrain.run_of(name).to_dict()))
    # They learnt on people of version 5 (commit 8c3ee121d1), and start the networks for version 6.
    assert about["run"].pop("data") == recipe.pop("data") | {"version": "v5"}
    assert about["run"] == recipe
    assert about["command"] == f"python -m fusionreid pretrain {name}"
    assert 0.1 < about["result"]["features"]["all"]["mAP"] < 1


def test_committed_weights_are_small():
    sizes = {file.stem: file.stat().st_size for file in paths.WEIGHTS.glob("*.safetensors")}
    assert sum(sizes[name] for name in pretrain.RECIPES) < 8e6 and sum(sizes.values()) < 12e6


@pytest.mark.parametrize("backbone", DEMO.backbones)
def test_the_demo_starts_from_them(backbone):
    branch = "cnn" if "resnet" in backbone else "transformer"
    config = replace(PAPER, image_size=(384, 128), **{branch: backbone})
    run = with_versions(make_run(DEMO, config))
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


def test_the_objective_tells_attributes_apart():
    looks = np.array([[0, 2], [1, 0], [1, 1]])  # three people; attributes of two and three classes
    features = torch.randn(4, 8)
    logits = torch.randn(4, 5)
    identities = torch.tensor([2, 2, 0, 1])
    objective = pretrain.AttributeObjective(looks)
    losses = objective(Output({"cnn": features}, {"cnn": logits}), identities)
    shares = torch.tensor([1 / 3, 2 / 3])
    by_hand = cross_entropy(logits[:, :2] + shares.log(), torch.tensor([1, 1, 0, 1]))
    by_hand += cross_entropy(logits[:, 2:], torch.tensor([1, 1, 2, 0]))  # equally frequent classes
    assert objective.num_classes == 5
    assert losses["cross_entropy/cnn"].item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert losses["triplet/cnn"].item() == pytest.approx(triplet(features, identities).item())


def test_a_network_learns_what_people_look_like(tiny_dataset, tmp_path):
    smoke = profile("smoke")
    scale = replace(smoke, train=replace(smoke.train, epochs=8, evaluate_every=8))
    run = make_run(scale, data=replace(smoke.data, version="tiny"))
    looks = np.array([[0, 1], [1, 0], [0, 2], [1, 1]])
    folder = train(
        run,
        objective=pretrain.AttributeObjective(looks),
        dataset=tiny_dataset,
        data_root=tmp_path / "data",
        runs_root=tmp_path / "runs",
        device="cpu",
        progress=False,
    )
    assert next(iter(folder.model().necks.values())).classifier.out_features == 2 + 3
    entropy = folder.metrics.query("kind == 'step'")["cross_entropy/cnn"]
    assert entropy.iloc[-1] < entropy.iloc[0] < 4  # of the shares alone: log 2 + 1.04


def test_another_objective_is_another_run():
    run = pretrain.run_of("test_vit_small")
    paper = RunConfig(run.model, run.data, run.train, run.seed)
    assert run.fingerprint != paper.fingerprint


def test_a_small_one_end_to_end(tmp_path, monkeypatch, tiny_dataset):
    def train_all(runs, runs_root, data_root, objective):
        for run in runs.values():
            train(
                run,
                objective=objective,
                dataset=tiny_dataset,
                data_root=data_root,
                runs_root=runs_root,
                progress=False,
            )

    short = replace(profile("smoke").train, epochs=1, warmup_epochs=0)
    monkeypatch.setattr(pretrain, "RECIPES", {"test_vit_small": short})
    monkeypatch.setattr(pretrain, "train_missing", train_all)
    monkeypatch.setattr(pretrain, "open_data", lambda *_: tiny_dataset)
    monkeypatch.setattr(pretrain, "PEOPLE", replace(pretrain.PEOPLE, version="tiny"))
    looks = np.array([[0, 1], [1, 0], [0, 2], [1, 1]])
    monkeypatch.setattr(pretrain.truth, "looks", lambda dataset: looks)
    folders = {"folder": tmp_path / "weights", "runs_root": tmp_path / "runs"}
    (file,) = pretrain.pretrain(["test_vit_small"], **folders, data_root=tmp_path)
    trained = RunFolder(pretrain.run_of("test_vit_small"), tmp_path / "runs")
    branch = trained.model().branches["transformer"]
    written = load_file(file)
    assert set(written) == set(branch.base.state_dict())
    for name, tensor in branch.base.state_dict().items():
        torch.testing.assert_close(written[name].to(tensor.dtype), tensor, atol=1e-3, rtol=1e-3)
