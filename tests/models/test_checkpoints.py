"""Our checkpoints: what is written comes back, older files load, and damaged ones are named."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fusionreid import build_model, load, paths
from fusionreid.config import PAPER, profile
from fusionreid.models import checkpoints

CONFIG = profile("smoke").scale(PAPER)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(CONFIG, 4, 6).eval()


@pytest.fixture
def path(model, tmp_path):
    checkpoints.save(tmp_path / "a.safetensors", model, epoch=3, seconds=[0.5])
    return tmp_path / "a.safetensors"


def rewrite(path, tensors=None, **header):
    """Writes a checkpoint again with some tensors and some fields of the header replaced."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {key: json.dumps(value) for key, value in header.items()}
    content = load_file(path) | (tensors or {})
    content = {name: tensor for name, tensor in content.items() if tensor is not None}
    save_file(content, path, metadata=metadata)


def same(model, other):
    tensors = checkpoints.tensors(model)
    assert tensors.keys() == checkpoints.tensors(other).keys()
    return all(
        torch.equal(tensor, tensors[name]) for name, tensor in checkpoints.tensors(other).items()
    )


def test_a_model_comes_back(model, path):
    found = checkpoints.load(path)
    assert found.config == CONFIG
    assert (found.num_classes, found.num_cameras, found.training) == (4, 6, False)
    assert same(model, found)
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 32).reshape(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(found.embed(images), model.embed(images))


def test_the_state_comes_back(path):
    assert checkpoints.read_state(path) == {"epoch": 3, "seconds": [0.5]}


def test_a_shared_module_is_stored_once(model):
    names = checkpoints.tensors(model)
    assert "fusion.stack.0.units.0.cnn.norm1.weight" in names
    assert "fusion.stack.0.units.0.transformer.norm1.weight" not in names
    assert "fusion.stack.0.units.1.transformer.norm1.weight" in names


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
        lambda parameters: torch.optim.SGD(parameters, 0.1),
        torch.optim.AdamW,
    ],
    ids=["momentum", "sgd", "adamw"],
)
def test_training_goes_on_to_the_same_numbers(model, tmp_path, make):
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 32).reshape(2, 3, 64, 32)

    def step(model, optimizer):
        optimizer.zero_grad()
        model.embed(images).square().mean().backward()
        optimizer.step()

    optimizer = make(model.parameters())
    step(model, optimizer)
    checkpoints.save(tmp_path / "a.safetensors", model, optimizer)
    step(model, optimizer)

    other = build_model(CONFIG, 4, 6).eval()
    other_optimizer = make(other.parameters())
    checkpoints.restore(tmp_path / "a.safetensors", other, other_optimizer)
    step(other, other_optimizer)
    assert same(model, other)


def test_the_digest_is_that_of_weights_and_configuration(model, path):
    digest = checkpoints.digest(model)
    assert checkpoints.digest(checkpoints.load(path)) == digest
    model.half()
    halved = checkpoints.digest(model)
    assert halved != digest
    assert checkpoints.digest(model.float()) == halved  # it is that of the values
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert checkpoints.digest(model) != halved


def test_a_file_with_checksums_still_loads(model, path):
    """Older files have one for each tensor, and one for the header."""
    sums = {name: 1 for name in load_file(path)}
    rewrite(path, checksums=sums, checksum=2, optimizer=None)
    assert same(model, checkpoints.load(path))
    assert checkpoints.read_state(path)["epoch"] == 3


def test_the_model_of_the_package_is_what_its_digest_says():
    path = paths.WEIGHTS / "demo.safetensors"
    assert checkpoints.digest(load(path, "cpu")) == checkpoints.read_state(path)["digest"]


EXPONENT = "model/branches.cnn.pool.exponent"


@pytest.mark.parametrize(
    "tensor, message",
    [
        (None, "missing"),
        (torch.ones(2), r"of another shape: expected \(1,\), found \(2,\)"),
        (torch.tensor([torch.nan]), "not finite"),
    ],
    ids=["missing", "shape", "nan"],
)
def test_a_wrong_tensor_is_named(path, tensor, message):
    rewrite(path, {EXPONENT: tensor})
    with pytest.raises(
        ValueError, match=f"{path}: .* in 1 of its tensors: {EXPONENT} is {message}$"
    ):
        checkpoints.load(path)


def test_a_tensor_too_many_is_named(path):
    rewrite(path, {"model/more": torch.ones(1)})
    with pytest.raises(ValueError, match="in 1 of its tensors: model/more is unknown"):
        checkpoints.load(path)


def test_another_model_is_refused(path):
    other = build_model(replace(CONFIG, fusion=None), 4, 6)
    with pytest.raises(ValueError, match="does not fit the model"):
        checkpoints.restore(path, other)


def test_a_header_without_a_configuration_is_named(path):
    rewrite(path, config={"cnn": "resnet18"})
    with pytest.raises(ValueError, match="expected a model's configuration in its header"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "a damaged or other file"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
    ids=["cut", "empty", "pointer"],
)
def test_what_is_no_whole_file_is_named(path, content, message):
    path.write_bytes(path.read_bytes()[:9000] if content is None else content)
    with pytest.raises(ValueError, match=f"{path}: expected a safetensors checkpoint, .*{message}"):
        checkpoints.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such checkpoint"):
        checkpoints.load(tmp_path / "none.safetensors")
