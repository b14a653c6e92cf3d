"""Weight files of every naming that is about, made here with random values."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision

from fusionreid.config import ModelConfig
from fusionreid.models.backbones import CNNBranch, TransformerBranch, patch_grid
from fusionreid.models.pretrained import (
    Report,
    load_branch,
    load_weights,
    positions_grid,
    read_tensors,
)
from fusionreid.models.t2t_vit import T2TViT


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet, whose names timm, LUPerson and CION share."""
    return torchvision.models.resnet18().state_dict()


def cnn_branch(name="resnet18"):
    return CNNBranch(ModelConfig(cnn=name, transformer=None))


def vit_branch(name="vit_tiny_patch16_224", **options):
    return TransformerBranch(ModelConfig(cnn=None, transformer=name, **options), num_cameras=3)


@pytest.fixture
def cnn():
    return cnn_branch()


@pytest.fixture
def vit():
    return vit_branch()


def tiny_vit(name="vit_tiny_patch16_224", **options):
    model = timm.create_model(name, **options)
    return {key: torch.rand_like(value) for key, value in model.state_dict().items()}


def obviously_resized(patches, size):
    """(N, D) of a square grid to (h * w, D): the bilinear formula, position by position."""
    side = int(len(patches) ** 0.5)
    image, rows = patches.reshape(side, side, -1), []
    for y in range(size[0]):
        for x in range(size[1]):
            fy = max(0.0, (y + 0.5) * side / size[0] - 0.5)
            fx = max(0.0, (x + 0.5) * side / size[1] - 0.5)
            y0, x0 = int(fy), int(fx)
            y1, x1, dy, dx = min(y0 + 1, side - 1), min(x0 + 1, side - 1), fy - y0, fx - x0
            rows.append(
                (1 - dy) * ((1 - dx) * image[y0, x0] + dx * image[y0, x1])
                + dy * ((1 - dx) * image[y1, x0] + dx * image[y1, x1])
            )
    return torch.stack(rows)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "teacher"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "base.", "module.backbone.", "module.encoder_q."]
)
def test_cnn_under_any_wrapper_and_prefix(cnn, resnet, wrapper, prefix):
    state = {prefix + name: value for name, value in resnet.items()}
    state |= {
        prefix.replace("_q", "_k") + "other." + name: value
        for name, value in list(resnet.items())[:9]
    }
    report = load_branch(cnn, {wrapper: state, "epoch": 3} if wrapper else state)
    prefix = prefix.removeprefix("module.")
    assert report.prefix == prefix and not report.random and not report.resized
    assert {name for name in report.unused if "other." not in name} == {
        prefix + "fc.weight",
        prefix + "fc.bias",
    }
    for name in ("conv1.weight", "layer4.1.bn2.running_var"):
        assert torch.equal(cnn.base.state_dict()[name], resnet[name])


def test_moco_takes_the_query_encoder(cnn, resnet):
    state = {f"module.encoder_q.{name}": value for name, value in resnet.items()}
    state |= {f"module.encoder_k.{name}": torch.zeros_like(value) for name, value in resnet.items()}
    report = load_branch(cnn, {"state_dict": state | {"module.queue": torch.zeros(128, 8)}})
    assert report.prefix == "encoder_q." and "queue" in report.unused
    assert torch.equal(cnn.base.conv1.weight, resnet["conv1.weight"])


def test_moco_takes_the_query_encoder_wherever_it_stands(cnn, resnet):
    state = {f"encoder_{which}.{name}": value for which in "kq" for name, value in resnet.items()}
    assert load_branch(cnn, state).prefix == "encoder_q."


def test_teacher_wins_over_student(cnn, resnet):
    zeros = {name: torch.zeros_like(value) for name, value in resnet.items()}
    load_branch(cnn, {"student": zeros, "teacher": resnet, "epoch": 1})
    assert torch.equal(cnn.base.conv1.weight, resnet["conv1.weight"])


def test_files(tmp_path, cnn, resnet):
    safetensors.torch.save_file(resnet, tmp_path / "a.safetensors")
    extras = {
        "args": argparse.Namespace(lr=0.1, output=Path("x")),
        "best": np.float64(0.5),
        "optimizer": {"state": {}},
    }
    torch.save({"state_dict": resnet, **extras}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        report = load_branch(cnn, tmp_path / name)
        assert report.source.endswith(name) and not report.random


@pytest.mark.parametrize(
    "size, stride, grid", [((256, 128), 12, (21, 10)), ((384, 128), 16, (24, 8))]
)
def test_vit_positions_are_resized_bilinearly(size, stride, grid):
    state = tiny_vit()
    branch = vit_branch(image_size=size, stride=stride)
    report = load_branch(branch, state)
    assert report.resized == {"pos_embed": f"grid 14 x 14 to {grid[0]} x {grid[1]}"}
    assert set(report.unused) == {"head.weight", "head.bias"} and not report.random
    torch.testing.assert_close(branch.base.pos_embed[0, 0].data, state["pos_embed"][0, 0])
    torch.testing.assert_close(
        branch.base.pos_embed[0, 1:].data, obviously_resized(state["pos_embed"][0, 1:], grid)
    )
    assert branch(torch.zeros(1, 3, *size), torch.tensor([1])).token.isfinite().all()


def test_deit_distilled(vit):
    state = tiny_vit("deit_tiny_distilled_patch16_224")
    report = load_branch(vit, {"model": state})
    assert {"dist_token", "head_dist.weight"} <= set(report.unused) and not report.random
    assert report.resized == {"pos_embed": "grid 14 x 14 to 21 x 10"}
    torch.testing.assert_close(vit.base.pos_embed[0, 0].data, state["pos_embed"][0, 0])
    torch.testing.assert_close(
        vit.base.pos_embed[0, 1:].data, obviously_resized(state["pos_embed"][0, 2:], (21, 10))
    )


def test_weights_of_people_on_their_own_grid(vit):
    """TransReID-SSL and PersonViT: a teacher, on 16 x 8 patches of 256 x 128."""
    state = tiny_vit(num_classes=0)
    state["pos_embed"] = torch.rand(1, 129, 192)
    teacher = {f"backbone.{name}": value for name, value in state.items()} | {
        "head.mlp.0.weight": torch.rand(8, 192)
    }
    report = load_branch(vit, {"student": {}, "teacher": teacher, "epoch": 100})
    assert report.resized == {"pos_embed": "grid 16 x 8 to 21 x 10"} and report.unused == [
        "head.mlp.0.weight"
    ]
    expected = F.interpolate(
        state["pos_embed"][:, 1:].mT.reshape(1, 192, 16, 8), (21, 10), mode="bilinear"
    )
    torch.testing.assert_close(vit.base.pos_embed[:, 1:].data, expected.flatten(2).mT)


def test_convolutional_stem_is_refused(vit):
    """TransReID-SSL's ViT-S with an IBN convolutional stem projects features, not pixels."""
    state = tiny_vit(num_classes=0)
    state["patch_embed.conv.0.weight"] = torch.rand(64, 3, 7, 7)
    state["patch_embed.proj.weight"] = torch.rand(192, 64, 8, 8)
    with pytest.raises(
        ValueError,
        match=r"another network: .*patch_embed.proj.weight: \(192, 64, 8, 8\) in the file",
    ):
        load_branch(vit, state)


def test_t2t_vit():
    branch = vit_branch("t2t_vit_14")
    state = T2TViT((224, 224)).state_dict() | {
        "head.weight": torch.zeros(1000, 384),
        "head.bias": torch.zeros(1000),
    }
    report = load_branch(branch, {"state_dict_ema": {f"module.{k}": v for k, v in state.items()}})
    assert report.resized == {"pos_embed": "grid 14 x 14 to 16 x 8"} and not report.random
    assert report.unused == ["head.weight", "head.bias"]
    assert torch.equal(branch.base.blocks[13].mlp.fc2.weight, state["blocks.13.mlp.fc2.weight"])
    performer = {
        k.replace("attn.qkv", "kqv"): v for k, v in state.items()
    }  # its tokens are made another way
    with pytest.raises(
        ValueError,
        match="first layer .*tokens_to_token.attention1.attn.qkv.weight: not in the file",
    ):
        load_branch(branch, performer)


@pytest.mark.parametrize(
    "state, match",
    [
        ({"a.weight": torch.zeros(3)}, "another network: .*found 0%.*Not used: a.weight"),
        ({"epoch": 3, "note": "x"}, "expected tensors by name.*epoch, note"),
        ({}, "expected tensors by name"),
    ],
)
def test_what_fits_nothing_is_an_error(cnn, state, match):
    with pytest.raises(ValueError, match=match):
        load_branch(cnn, state)


def test_another_size_is_an_error(vit):
    with pytest.raises(ValueError, match="another network"):
        load_branch(vit, timm.create_model("test_vit").state_dict())


def test_broken_files_are_named(tmp_path, cnn):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "module.pth").read_bytes()[:300])
    (tmp_path / "cut.safetensors").write_bytes(b"12345678901")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.zeros(9)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "legacy.pth").write_bytes((tmp_path / "legacy.pth").read_bytes()[:60])
    texts = {
        "hello.pth": "hello world",
        "page.pth": "<html></html>",
        "short.pth": "ab",
        "pickled.pth": "cos\nsystem\n.",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    names = (
        "module.pth",
        "cut.pth",
        "cut.safetensors",
        "empty.pth",
        "list.pth",
        "legacy.pth",
        *texts,
    )
    for name in names:
        with pytest.raises(ValueError, match=f"{name}: expected .* found ") as error:
            load_branch(cnn, tmp_path / name)
        assert "\x1b" not in str(error.value) and len(str(error.value)) < 400
    with pytest.raises(
        ValueError, match="found a torch.nn.modules.linear.Linear; torch.save its tensors alone"
    ):
        load_branch(cnn, tmp_path / "module.pth")
    with pytest.raises(FileNotFoundError, match="none.pth"):
        read_tensors(tmp_path / "none.pth")


def test_report_reads_well(vit):
    state = tiny_vit()
    state = {name: value for name, value in state.items() if "attn.qkv.bias" not in name}
    text = str(load_branch(vit, state))
    assert text.startswith("state dict: 138 of the branch's 150 tensors")
    assert "left at random blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias, " in text
    assert "... (12 in all): not in the file" in text
    assert "unused         head.weight, head.bias" in text and len(text.splitlines()) == 4
    assert str(Report("x")) == "x: 0 of the branch's 0 tensors"


def test_many_unused_tensors_are_counted(cnn, resnet):
    report = load_branch(
        cnn, resnet | {f"head.{letter}.weight": torch.zeros(1) for letter in "abcdefghij"}
    )
    assert str(report).endswith("head.f.weight, ... (12 in all)")


@pytest.mark.parametrize(
    "branch, theirs, message",
    [
        (
            "resnet18",
            "resnet34",
            r"found 100%. Not filled: nothing. Not used: layer1.2.conv1.weight, ",
        ),
        (
            "resnet34",
            "resnet18",
            r"expected to fill .*95% of the branch, .*found 5\d%. Not filled: layer1.*not in the",
        ),
        ("resnet50", "resnext50_32x4d", r"found \d\d%. Not filled: layer1.*conv1.weight"),
    ],
)
def test_another_network_of_the_family_is_an_error(branch, theirs, message):
    with pytest.raises(ValueError, match=message):
        load_branch(cnn_branch(branch), torchvision.models.get_model(theirs).state_dict())


def test_parts_that_the_blocks_do_not_have_are_an_error(vit, cnn, resnet):
    """LayerScale of DeiT III, the convolutions of squeeze and excitation."""
    scaled = vit.base.state_dict() | {"blocks.0.ls1.gamma": torch.ones(192)}
    with pytest.raises(ValueError, match="Not filled: nothing. Not used: blocks.0.ls1.gamma"):
        load_branch(vit, scaled)
    excited = resnet | {"layer1.0.se.fc1.weight": torch.ones(4, 64, 1, 1)}
    with pytest.raises(ValueError, match="Not filled: nothing. Not used: layer1.0.se.fc1.weight"):
        load_branch(cnn, excited)


def test_a_tensor_beside_the_weights_does_not_hide_them(cnn, resnet):
    """PyTorch's ImageNet example keeps the best accuracy as a tensor."""
    report = load_branch(cnn, {"epoch": 90, "best_acc1": torch.tensor(76.1), "state_dict": resnet})
    assert len(report.loaded) > 90 and not report.random


def test_numbers_that_are_not_finite_are_named(vit):
    state = tiny_vit()
    state["blocks.3.mlp.fc1.weight"][0, 0] = torch.nan
    with pytest.raises(
        ValueError, match="blocks.3.mlp.fc1.weight holds numbers that are not finite"
    ):
        load_branch(vit, state)


@pytest.mark.parametrize(
    "size, stride, count, done",
    [
        ((384, 128), 12, 210, "grid 21 x 10 to 31 x 10"),
        ((384, 128), 16, 128, "grid 16 x 8 to 24 x 8"),
        ((256, 64), 16, 64, None),  # as many as the branch has: its own grid, not 8 x 8
    ],
)
def test_positions_of_people(size, stride, count, done):
    branch = vit_branch(image_size=size, stride=stride)
    state = tiny_vit(num_classes=0) | {"pos_embed": torch.rand(1, 1 + count, 192)}
    report = load_branch(branch, state)
    assert report.resized.get("pos_embed") == done
    assert done or torch.equal(branch.base.pos_embed.data, state["pos_embed"])


def test_half_precision_and_partial_load_keep_the_branch_in_float32(cnn, resnet):
    halves = {
        name: value.half() if value.is_floating_point() else value for name, value in resnet.items()
    }
    load_branch(cnn, halves)
    assert all(parameter.dtype == torch.float32 for parameter in cnn.parameters())


def test_positions_grid_knows_the_grids_of_imagenet_and_of_people():
    assert positions_grid(196) == (14, 14) and positions_grid(576) == (24, 24)
    for size in ((256, 128), (384, 128)):
        for stride in (16, 14, 12, 10, 8):
            rows, columns = patch_grid(size, stride)
            assert positions_grid(rows * columns) == (rows, columns)


def test_load_weights_names_a_branch_that_is_absent(cnn):
    model = torch.nn.Module()
    model.branches = torch.nn.ModuleDict({"cnn": cnn})
    assert load_weights(model) == {}
    with pytest.raises(ValueError, match="b.pth.*transformer"):
        load_weights(model, transformer="b.pth")
