"""The two branches: backbones of timm by name, grids, cameras, ImageNet weights, refusals."""

from dataclasses import replace

import pytest
import timm
import torch
from torch import nn

from fusionreid import PAPER, FusionConfig, ModelConfig, build_model
from fusionreid.config import profile
from fusionreid.models import backbones
from fusionreid.models.backbones import (
    IMAGENET,
    CNNBranch,
    TransformerBranch,
    keep_last_resolution,
    patch_grid,
)

SMALL = profile("smoke").scale(PAPER)


def images(config, batch=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, *config.image_size, generator=generator)


@pytest.mark.parametrize("size, stride", [((256, 128), 12), ((256, 128), 16), ((64, 32), 12)])
def test_the_patch_grid_counts_whole_patches(size, stride):
    height, width = size
    rows = len([top for top in range(0, height, stride) if top + 16 <= height])
    columns = len([left for left in range(0, width, stride) if left + 16 <= width])
    assert patch_grid(size, stride) == (rows, columns)


def test_any_backbone_of_timm_by_its_name():
    config = ModelConfig(
        cnn="test_efficientnet",
        transformer="vit_tiny_patch16_224",
        image_size=(64, 32),
        fusion=FusionConfig(dim=24),
    )
    model = build_model(config, 5).eval()
    assert model.grids["cnn"] == (4, 2)
    assert model(images(config)).features["cnn_fused"].shape == (4, 24)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet18d", "test_resnet_small"])
def test_the_cnn_keeps_a_sixteenth_of_the_image(name):
    config = replace(SMALL, cnn=name, transformer=None)
    branch = CNNBranch(config).eval()
    token, local = branch(images(config))
    assert branch.grid == (4, 2)
    assert local.shape == (4, branch.width, 4, 2)
    assert token.shape == (4, branch.width)


def test_the_grid_leaves_the_mode_as_it_is():
    branch = CNNBranch(SMALL).train()
    means = branch.base.bn1.running_mean.clone()
    branch.base.bn1.eval()  # frozen
    assert branch.grid == (4, 2) and branch.training and not branch.base.bn1.training
    assert torch.equal(branch.base.bn1.running_mean, means)


def test_the_released_stem():
    """No ReLU after the first norm, 2 x 2 max pool."""
    base = CNNBranch(replace(SMALL, stem="released")).base
    assert isinstance(base.act1, nn.Identity)
    assert (base.maxpool.kernel_size, base.maxpool.stride, base.maxpool.padding) == (2, 2, 0)


def test_the_transformer_gives_class_token_and_map():
    config = replace(SMALL, cnn=None)
    branch = TransformerBranch(config).eval()
    token, local = branch(images(config))
    assert branch.grid == patch_grid(config.image_size, config.stride)
    assert token.shape == (4, branch.width)
    assert local.shape == (4, branch.width, *branch.grid)


def test_a_plain_vit_computes_what_timm_does():
    """At timm's own size and stride, without cameras."""
    config = ModelConfig(
        cnn=None, transformer="vit_tiny_patch16_224", image_size=(224, 224), stride=16
    )
    branch = TransformerBranch(config).eval()
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    plain.load_state_dict(branch.base.state_dict())
    x = images(config, batch=1)
    with torch.no_grad():
        tokens = plain.forward_features(x)
        token, local = branch(x)
    torch.testing.assert_close(token, tokens[:, 0])
    torch.testing.assert_close(local.flatten(2).mT, tokens[:, 1:])


def test_camera_embedding_scale_and_unseen_cameras():
    config = replace(SMALL, cnn=None)
    torch.manual_seed(0)
    branch = TransformerBranch(config, num_cameras=6).eval()
    expected = 3.0 * branch.camera_embedding[2, 0]
    assert torch.equal(branch.embed_cameras(torch.tensor([2]))[0, 0], expected)
    x = images(config)
    unseen = branch(x, torch.full((4,), -1)).token
    assert torch.equal(unseen, branch(x).token)
    assert not torch.allclose(unseen, branch(x, torch.zeros(4, dtype=torch.int64)).token)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch):
    def offline(*_, **__):
        raise FileNotFoundError("cannot find the file on the Hub\nand more")

    monkeypatch.setattr(timm, "create_model", offline)
    why = r"its weights cannot be fetched \(cannot find the file on the Hub\); give a file, "
    with pytest.raises(OSError, match=f"resnet50.tv_in1k: {why}.*data/weights/resnet50.pth"):
        backbones.create("resnet50", pretrained=True)
    t2t = ModelConfig(cnn=None, transformer="t2t_vit_14")
    with pytest.raises(
        ValueError, match="t2t_vit_14: no public weights.*data/weights/t2t_vit_14.pth"
    ):
        TransformerBranch(t2t, pretrained=True)


@pytest.mark.parametrize("name", IMAGENET)
def test_imagenet_weights_are_the_usual_ones(name, monkeypatch):
    tag = f"{name}.{IMAGENET[name]}"
    assert tag in timm.list_pretrained(f"{name}.*")
    asked = []
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: asked.append((name, options["pretrained"]))
    )
    backbones.create(name, pretrained=True)
    backbones.create(name)
    assert asked == [(tag, True), (name, False)]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cnn": "resnet51"}, "backbone 'resnet51' is unknown to timm"),
        ({"cnn": "t2t_vit_14"}, "backbone 't2t_vit_14' is unknown to timm"),
        ({"cnn": "test_vit"}, "VisionTransformer has no layer of stride 2; expected a CNN of timm"),
        ({"cnn": "test_efficientnet", "stem": "released"}, "for ResNets"),
        ({"transformer": "test_vit3"}, "one class token"),
        ({"transformer": "eva02_tiny_patch14_224"}, "is a Eva; expected a plain ViT"),
        ({"transformer": "vit_xsmall_patch16_clip_224"}, "no norm before the first block"),
        ({"transformer": "deit3_small_patch16_224"}, "positions for it"),
        ({"transformer": "test_vit_small", "stride": 14}, "expected multiples of 4"),
        ({"transformer": "test_vit_small", "image_size": (128, 63)}, "expected multiples of 4"),
        ({"cnn": None, "transformer": None}, "at least one branch"),
    ],
)
def test_wrong_configuration_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        build_model(replace(SMALL, **changes), 5)


def test_a_network_without_strides_is_refused():
    with pytest.raises(ValueError, match="Linear has no layer of stride 2"):
        keep_last_resolution(nn.Linear(2, 2))
