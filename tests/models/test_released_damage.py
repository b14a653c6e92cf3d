"""Damaged checkpoints of the released code, and those of another network: every tensor in question is named."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fusionreid.config import RELEASED
from fusionreid.models import released
from fusionreid.models.fusionreid import build_model

FUSION = replace(RELEASED.fusion, dim=24, share_seu=False)
SMALL = replace(RELEASED, cnn="resnet18", transformer="vit_tiny_patch16_224", fusion=FUSION)


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_model(SMALL, 5, 3).eval()


def test_a_checkpoint_without_classifiers_is_refused(small):
    state = {
        name: value for name, value in released.export(small).items() if "classifier" not in name
    }
    with pytest.raises(
        ValueError, match="in 6 of its tensors: resnet.classifier.weight is missing"
    ):
        released.load(state)


def test_every_tensor_is_accounted_for(small):
    state = released.export(small)
    headless = {
        name: value for name, value in state.items() if not name.startswith("transformer.base.fc.")
    }
    assert len(headless) == len(state) - 2 and released.load(headless).config == SMALL
    with pytest.raises(
        ValueError, match="in 1 of its tensors: transformer.base.surprise is unknown"
    ):
        released.load(state | {"transformer.base.surprise": torch.zeros(2)})
    with pytest.raises(ValueError, match="in 1 of its tensors: res_LRU.bn1.bias is missing"):
        released.load({name: value for name, value in state.items() if name != "res_LRU.bn1.bias"})
    with pytest.raises(
        ValueError, match=r"gap_f.p is of another shape: expected \(1,\), found \(2,\)"
    ):
        released.load(state | {"gap_f.p": torch.zeros(2)})
    with pytest.raises(
        ValueError, match=r"damaged in 26 of its tensors: HTM.blocks.0.SEU2.\S+ is unknown"
    ):
        released.load(state, replace(SMALL, fusion=replace(SMALL.fusion, share_seu=True)))
    with pytest.raises(ValueError, match="does not fit the configuration"):
        released.load(state, replace(SMALL, stride=16))


@pytest.fixture(scope="module")
def zeros():
    """A checkpoint of the small model whose tensors are one zero each, repeated, so that its file is small too."""
    with torch.device("meta"):
        tensors = released.export(build_model(SMALL, 5, 3))
    return {
        name: torch.zeros((), dtype=value.dtype).expand(value.shape)
        for name, value in tensors.items()
    }


def gone(value):
    return None


def one_number(number, dtype=torch.float32):
    """Fills a tensor, here as one number repeated."""
    return lambda value: torch.tensor(number, dtype=dtype).expand(value.shape)


def of_shape(*shape):
    return lambda value: torch.zeros(()).expand(shape)


FC1 = "transformer.base.blocks.3.mlp.fc1.weight"


@pytest.mark.parametrize(
    "name, damage, message",
    [
        (FC1, one_number(math.nan), f": {FC1} is not finite"),
        (FC1, one_number(-math.inf, torch.bfloat16), f": {FC1} is not finite"),
        (
            "resnet.base.bn1.running_var",
            one_number(math.inf),
            ": resnet.base.bn1.running_var is not finite",
        ),
        (
            FC1,
            one_number(0, torch.int8),
            f": {FC1} is of another type: expected floating point, found torch.int8",
        ),
        (
            "transformer.base.pos_embed",
            gone,
            ": transformer.base.pos_embed: expected 3 dimensions, found nothing",
        ),
        (
            "transformer.base.pos_embed",
            of_shape(211, 192),
            ": transformer.base.pos_embed: expected 3 dimensions, found",
        ),
        (
            "transformer.base.sie_embed",
            of_shape(),
            ": transformer.base.sie_embed: expected 3 dimensions, found",
        ),
        (
            "transformer.base.cls_token",
            gone,
            "in 1 of its tensors: transformer.base.cls_token is missing",
        ),
        (
            "resnet.base.conv1.weight",
            gone,
            "in 1 of its tensors: resnet.base.conv1.weight is missing",
        ),
        (
            "res_LRU.ptconv.weight",
            gone,
            ": res_LRU.ptconv.weight: expected 4 dimensions, found nothing",
        ),
        (
            "res_LRU.ptconv.weight",
            of_shape(25, 512, 1, 1),
            ": res_LRU.ptconv.weight: expected rows for 12 heads",
        ),
        ("res_LRU.dwconv.weight", gone, "in 1 of its tensors: res_LRU.dwconv.weight is missing"),
        ("gap_r.p", gone, "in 1 of its tensors: gap_r.p is missing"),
        (
            "classifier_1.weight",
            of_shape(6, 24),
            ": classifier_1.weight is of another shape: expected (5, 24), found (6",
        ),
        (
            "classifier_1.weight",
            of_shape(),
            ": classifier_1.weight is of another shape: expected (5, 24), found ()",
        ),
    ],
)
def test_a_damaged_tensor_is_named(tmp_path, zeros, name, damage, message):
    damaged = zeros | {name: damage(zeros[name])}
    torch.save(
        {key: value for key, value in damaged.items() if value is not None}, tmp_path / "a.pth"
    )
    with pytest.raises(ValueError) as error:
        released.load(tmp_path / "a.pth")
    assert str(error.value).startswith(f"{tmp_path / 'a.pth'}: ") and message in str(error.value)
    assert len(str(error.value).removeprefix(str(tmp_path))) < 200  # it names nothing else


def test_a_part_without_one_tensor_is_still_told(zeros):
    with torch.device("meta"):
        resnet50 = released.export(build_model(replace(RELEASED, transformer=None), 5))
        t2t = released.export(build_model(replace(RELEASED, transformer="t2t_vit_14", cnn=None), 5))
    states = {
        "HTM.blocks.0.SEU1.blocks.0.attn.qkv.weight": {
            n: v for n, v in zeros.items() if "HTM.blocks.1." not in n
        },
        "resnet.base.layer1.0.conv3.weight": resnet50,
        "transformer.base.tokens_to_token.project.weight": t2t,
        "base.cls_token": {name.removeprefix("transformer."): value for name, value in t2t.items()},
    }
    for name, state in states.items():
        config = released.deduce(state)
        del state[name]
        assert released.deduce(state) == config, name


def test_a_unit_of_the_configuration_that_is_not_there_is_named(zeros):
    state = {name: value for name, value in zeros.items() if ".SEU" not in name}
    with pytest.raises(ValueError, match="HTM.blocks.0.SEU1.blocks.0.norm1.weight is missing"):
        released.load(state, SMALL)


def test_what_cannot_be_deduced_is_named(small):
    state = released.export(small)
    with pytest.raises(ValueError, match="state dict: not of the released code: .*conv1.weight"):
        released.load({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="111 patches"):
        released.deduce(state | {"transformer.base.pos_embed": torch.zeros(1, 112, 192)})
    with pytest.raises(ValueError, match="expected one of resnet18, .* found a resnet20"):
        released.deduce(state | {"resnet.base.layer1.2.conv1.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError,
        match="in 1 of its tensors: HTM.blocks.0.SEU3.blocks.0.attn.qkv.weight is unknown",
    ):
        released.load(state | {"HTM.blocks.0.SEU3.blocks.0.attn.qkv.weight": torch.zeros(1)})
