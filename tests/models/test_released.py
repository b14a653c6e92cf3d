"""Checkpoints of the released code: its numbers, every variant by its tensors, and damaged ones."""

from __future__ import annotations

import json
import lzma
import math
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import plain_released
import pytest
import torch
from released_checkpoint import released_tensors
from safetensors.torch import save_file

from fusionreid.config import RELEASED
from fusionreid.models import released
from fusionreid.models.fusionreid import build_model

DATA = Path(__file__).parents[1] / "fixtures"
TENSORS = json.loads(lzma.open(DATA / "checkpoint_tensors.json.xz").read())
FUSION = replace(RELEASED.fusion, share_seu=False)  # as the checkpoint of the reference numbers
UNSHARED = replace(RELEASED, fusion=FUSION)
SMALL = replace(
    RELEASED,
    cnn="resnet18",
    transformer="vit_tiny_patch16_224",
    fusion=replace(FUSION, dim=24, depth=2),
)


def rebuilt(name, shape):
    """The weight of this name by the rule that the reference numbers were made with."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))

    def uniform(a):
        return ((generator.random(size=shape) * 2 - 1) * a).astype(np.float32)

    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if last == "bias":
        value = uniform(0.1)
    elif last == "weight" and len(shape) > 1:
        value = uniform(math.sqrt(3 / math.prod(shape[1:])))
    elif last == "weight":
        value = 0.25 + uniform(0.1) if ".act" in name else 1 + uniform(0.2)
    else:
        offset, scale = {"running_var": (1, 0.4), "running_mean": (0, 0.2), "p": (3, 0.5)}.get(
            last, (0, 0.3)
        )
        value = offset + uniform(scale)
    return torch.from_numpy(value)


def error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


def names_and_shapes(tensors):
    return {name: tuple(value.shape) for name, value in tensors.items()}


def stored(checkpoint):
    """Names and shapes in a released checkpoint, without ImageNet's classifiers."""
    return {
        name: tuple(shape)
        for name, shape in TENSORS[checkpoint].items()
        if not released.UNUSED.match(name)
    }


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    return build_model(SMALL, 5, 3).eval()


@pytest.mark.slow
def test_conformance_with_the_released_default():
    """ResNet-50 + ViT-B/16: six features and logits as the released code computes them, to 1e-4.

    Batch norm over four images magnifies rounding: logits of float32 are 8e-5 from those of
    float64, which no machine changes.
    """
    reference = np.load(DATA / "released_default.npz")
    state = {
        name: rebuilt(name, tuple(shape)) for name, shape in TENSORS["released_default"].items()
    }
    model = released.load(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    )
    assert model.config == UNSHARED and model.num_cameras == 15
    generator = np.random.Generator(np.random.PCG64(7))
    images = torch.from_numpy((generator.random((4, 3, 256, 128)) * 2 - 1).astype(np.float32))
    cameras = torch.tensor([0, 3, 7, 14])
    with torch.no_grad():
        features = model.embed(images, cameras).numpy()
        model.train().double()
        for module in model.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        logits = np.stack(
            [value.numpy() for value in model(images.double(), cameras).logits.values()]
        )
    assert features.shape == (4, 5888) and error(features, reference["eval"]) < 1e-5
    with torch.no_grad():
        assert (
            error(plain_released.features(state, images, cameras).numpy(), reference["eval"]) < 1e-5
        )
    assert logits.shape == (6, 4, 64) and error(logits, reference["train_logits"]) < 1e-4
    assert names_and_shapes(released_tensors(model)) == stored("released_default")


def test_t2t_vit_and_resnet101_with_the_shared_encoder():
    with torch.device("meta"):
        state = {
            name: torch.empty(shape) for name, shape in TENSORS["t2t_vit_14_resnet101"].items()
        }
        config = released.deduce(state)
        model = build_model(config, 64, 15)
    assert config == replace(RELEASED, cnn="resnet101", transformer="t2t_vit_14")
    assert config.fusion.share_seu
    assert names_and_shapes(released_tensors(model)) == stored("t2t_vit_14_resnet101")


VARIANTS = {
    "default": RELEASED,
    "unshared": UNSHARED,
    "resnet101": replace(RELEASED, cnn="resnet101"),
    "resnet152": replace(RELEASED, cnn="resnet152"),
    "t2t": replace(RELEASED, transformer="t2t_vit_14"),
    "t2t-384": replace(RELEASED, transformer="t2t_vit_14", image_size=(384, 128)),
    "stride-16": replace(RELEASED, stride=16),
    "384": replace(RELEASED, image_size=(384, 128)),
    "384-stride-16": replace(RELEASED, image_size=(384, 128), stride=16),
    "shared-mfu": replace(RELEASED, fusion=replace(FUSION, share_mfu=True)),
    "shared-both": replace(RELEASED, fusion=replace(FUSION, share_seu=True, share_mfu=True)),
    "seu-only": replace(RELEASED, fusion=replace(FUSION, units=("seu",))),
    "mfu-only": replace(RELEASED, fusion=replace(RELEASED.fusion, units=("mfu",))),
    "refined-only": replace(RELEASED, fusion=replace(RELEASED.fusion, units=(), depth=1)),
    "gap": replace(RELEASED, fusion=replace(FUSION, pooling="gap")),
    "dim-384-depth-6": replace(RELEASED, fusion=replace(FUSION, dim=384, depth=6)),
    "dim-1536-depth-1": replace(RELEASED, fusion=replace(FUSION, dim=1536, depth=1)),
    "no-fusion": replace(RELEASED, fusion=None),
    "cnn-alone": replace(RELEASED, transformer=None),
    "transformer-alone": replace(RELEASED, cnn=None),
}


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_deduced_from_its_tensors(config):
    with torch.device("meta"):
        cameras = 0 if config == VARIANTS["gap"] else 6
        tensors = released_tensors(build_model(config, 64, cameras))
    assert released.deduce(tensors) == config


def small_of(config):
    return replace(
        config,
        cnn=config.cnn and "resnet18",
        transformer=config.transformer and "vit_tiny_patch16_224",
        fusion=config.fusion and replace(config.fusion, dim=24),
    )


PAPERS_SIZE = (
    "resnet152",
    "t2t",
    "384-stride-16",
    "dim-1536-depth-1",
)  # the others are computed by small branches
COMPUTED = {
    name: config if name in PAPERS_SIZE else small_of(config)
    for name, config in VARIANTS.items()
    if name not in ("resnet101", "t2t-384", "stride-16", "384", "dim-384-depth-6")
} | {
    "depth-6": replace(SMALL, fusion=replace(SMALL.fusion, dim=48, depth=6)),
    "reversed": replace(SMALL, fusion=replace(SMALL.fusion, units=("mfu", "seu"))),
    "reversed-shared": replace(
        SMALL, fusion=replace(SMALL.fusion, units=("mfu", "seu"), share_seu=True)
    ),
}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=pytest.mark.slow if name in PAPERS_SIZE else ())
        for name, config in COMPUTED.items()
    ],
)
def test_every_variant_computes_what_the_released_code_does(config):
    """A checkpoint of each variant against the arithmetic written a second time.

    The second writing gives the released default's own numbers, as the test above shows.
    """
    with torch.device("meta"):
        model = build_model(config, 4, 6 if config.transformer else 0)
    places = names_and_shapes(released_tensors(model))
    state = {name: rebuilt(name, shape) for name, shape in places.items()}
    images = torch.from_numpy(
        np.random.default_rng(3).uniform(-1, 1, (2, 3, *config.image_size)).astype(np.float32)
    )
    cameras = torch.tensor([0, 5])
    heads = {"vit_tiny_patch16_224": 3, "t2t_vit_14": 6}.get(config.transformer, 12)
    units = config.fusion.units if config.fusion else ()
    with torch.no_grad():
        expected = plain_released.features(
            state, images, cameras, stride=config.stride, units=units, vit_heads=heads
        )
        found = released.load(state, config).embed(images, cameras)
    assert found.shape == expected.shape and expected.std() > 0
    assert error(found.numpy(), expected.numpy()) < 1e-5


@pytest.mark.parametrize("share, suffix", [(False, ".pth"), (True, ".safetensors")])
def test_every_tensor_comes_from_the_file(tmp_path, share, suffix):
    torch.manual_seed(0)
    fusion = replace(SMALL.fusion, share_seu=share, share_mfu=share)
    model = build_model(replace(SMALL, fusion=fusion), 5, 3)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.mul_(1 + 0.1 * torch.rand_like(value)).add_(0.01)
    path = tmp_path / f"theirs{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(released_tensors(model), path)
    found = released.load(path)
    assert found.config == model.config and not found.training
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_one_branch_alone_under_its_bare_names():
    torch.manual_seed(0)
    model = build_model(replace(SMALL, transformer=None), 5)
    tensors = released_tensors(model)
    bare = {name.removeprefix("resnet."): value for name, value in tensors.items()}
    found = released.load({"model": bare})
    assert found.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_wrapped_twice_and_of_another_precision(small, dtype):
    state = {}
    for name, value in released_tensors(small).items():
        converted = value.to(dtype) if value.is_floating_point() else value
        state[f"module._orig_mod.{name}"] = converted
    found = released.load(state)
    assert found.config == SMALL
    for name, value in small.state_dict().items():
        if value.is_floating_point():
            value = value.to(dtype).float()
        assert torch.equal(found.state_dict()[name], value), name


def test_every_tensor_is_accounted_for(small):
    state = released_tensors(small)
    imagenet = {"transformer.base.fc.weight": torch.zeros(1000, 192)}
    assert released.load(state | imagenet).config == SMALL
    with pytest.raises(ValueError, match="in 1 of its tensors: transformer.base.more is unknown"):
        released.load(state | {"transformer.base.more": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"gap_f.p is of another shape: expected \(1,\), found"):
        released.load(state | {"gap_f.p": torch.zeros(2)})
    with pytest.raises(ValueError, match="in 1 of its tensors: gap_f.p is not finite"):
        released.load(state | {"gap_f.p": torch.full((1,), math.nan)})
    del state["res_LRU.bn1.bias"]
    with pytest.raises(ValueError, match="in 1 of its tensors: res_LRU.bn1.bias is missing"):
        released.load(state)


def test_a_configuration_that_does_not_fit_is_refused(small):
    state = released_tensors(small)
    shared = replace(SMALL, fusion=replace(SMALL.fusion, share_seu=True))
    with pytest.raises(ValueError, match="HTM.blocks.0.SEU.blocks.0.norm1.weight is missing"):
        released.load(state, shared)
    with pytest.raises(ValueError, match="transformer.base.pos_embed is of another shape"):
        released.load(state, replace(SMALL, stride=16))


def test_a_cut_file_is_named(tmp_path, small):
    torch.save(released_tensors(small), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    with pytest.raises(ValueError, match="cut.pth: expected"):
        released.load(tmp_path / "cut.pth")


def test_what_cannot_be_deduced_is_named(small):
    state = released_tensors(small)
    with pytest.raises(ValueError, match="state dict: not of the released code: .*conv1.weight"):
        released.load({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="111 patches"):
        released.deduce(state | {"transformer.base.pos_embed": torch.zeros(1, 112, 192)})
    with pytest.raises(ValueError, match="expected one of resnet18, .* found a resnet20"):
        released.deduce(state | {"resnet.base.layer1.2.conv1.weight": torch.zeros(1)})
    del state["transformer.base.pos_embed"]
    with pytest.raises(ValueError, match="transformer.base.pos_embed is missing"):
        released.deduce(state)
