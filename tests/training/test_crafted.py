"""Checkpoints and results from elsewhere, with wild sizes: refused before memory is taken."""

from __future__ import annotations

import json
import resource

import pytest
import torch
from safetensors.torch import save_file

from fusionreid.config import PAPER, profile
from fusionreid.models import checkpoints, released
from fusionreid.models.fusionreid import build_model
from fusionreid.models.pretrained import read_tensors

SMALL = profile("smoke").scale(PAPER)
MOST = 64 << 20  # bytes that refusing a file may take


@pytest.fixture
def no_memory():
    """Allocations beyond `MOST` fail, as they would for want of memory."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def write(path, header: dict, size: int = 64, length: int | None = None):
    """A safetensors file with this header and `size` bytes of tensors."""
    text = json.dumps(header).encode()
    path.write_bytes(
        (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(size)
    )
    return path


def tensor(shape, end: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


@pytest.mark.parametrize("load", [checkpoints.load, released.load, read_tensors])
@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({"a": tensor([1 << 40], 1 << 42)}, None),
        ({"a": tensor([1 << 31, 1 << 31, 1 << 31], 64)}, None),
        ({"a": tensor([1 << 40], 64)}, None),
        ({"a": tensor([-1], 64)}, None),
        ({}, 1 << 62),
    ],
)
def test_a_header_that_claims_huge_tensors(tmp_path, no_memory, load, header, length):
    path = write(tmp_path / "a.safetensors", header, length=length)
    with pytest.raises(ValueError, match=f"{path}: expected "):
        load(path)


@pytest.mark.parametrize(
    "wild",
    [
        {"num_classes": 10**12},
        {"num_cameras": 10**12},
        {"num_classes": -1},
        {"num_classes": "many"},
        {"fusion": {"dim": 12 * 10**8}},
        {"fusion": {"depth": 10**9}},
        {"image_size": [10**6, 10**6]},
        {"image_size": [10**30, 16]},
        {"cnn": "../../etc/passwd"},
    ],
)
def test_a_configuration_of_wild_sizes(tmp_path, wild, request):
    checkpoints.save(tmp_path / "good.safetensors", build_model(SMALL, 4, 6))
    file, header = checkpoints._open(tmp_path / "good.safetensors")
    fusion = wild.pop("fusion", {})
    header["config"]["fusion"] |= fusion
    (header["config"] if wild.keys() & header["config"].keys() else header).update(wild)
    content = {key: file.get_tensor(key) for key in file.keys()}
    save_file(
        content,
        path := tmp_path / "a.safetensors",
        metadata={k: json.dumps(v) for k, v in header.items()},
    )
    request.getfixturevalue("no_memory")  # from here on
    with pytest.raises(ValueError, match=f"{path}[: ]"):
        checkpoints.load(path)


@pytest.mark.parametrize(
    "name", ["HTM.blocks.999999999.SEU.blocks.0.norm1.weight", "resnet.layer1.999999999.bn1.bias"]
)
def test_released_names_that_count_high(tmp_path, no_memory, name):
    save_file({name: torch.zeros(4)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="a.safetensors"):
        released.load(tmp_path / "a.safetensors")


def test_a_tensor_of_torch_save_that_is_larger_than_its_file(tmp_path, no_memory):
    """Strides of 0 let four bytes have any shape."""
    wild = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"resnet.conv1.weight": wild, "resnet.classifier.weight": wild}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="a.pth"):
        released.load(tmp_path / "a.pth")
