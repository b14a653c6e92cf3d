"""Attention weights are the model's own, Grad-CAM maps are not empty, and neither leaves a trace in
the model.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from fusionreid.config import PAPER, PROFILES, RELEASED
from fusionreid.evaluation import explain
from fusionreid.models.fusion import Attention
from fusionreid.models.fusionreid import build_model

SMOKE = PROFILES["smoke"]
CAMERAS = torch.tensor([0, 1, -1])
VARIANTS = {
    "paper": PAPER,
    "released": RELEASED,
    "own_seu": replace(PAPER, fusion=replace(PAPER.fusion, share_seu=False, share_mfu=True)),
    "t2t": replace(PAPER, transformer="t2t_vit_14"),
}


def tiny(config=PAPER):
    torch.manual_seed(0)
    return build_model(SMOKE.scale(config), num_classes=5, num_cameras=2)


def pictures(seed: int = 0, number: int = 3) -> torch.Tensor:
    return torch.randn(
        number, 3, *SMOKE.sizes[256, 128], generator=torch.Generator().manual_seed(seed)
    )


def attention_maps(model):
    """The recorded weights of one pass in evaluation mode, without gradients."""
    with explain.evaluating(model), torch.no_grad(), explain.record_attention(model) as maps:
        model(pictures(), CAMERAS)
    return maps


def hooks(model) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


@pytest.fixture(scope="module")
def trio():
    """FusionReID and its two branches alone."""
    return tiny(), tiny(replace(PAPER, transformer=None)), tiny(replace(PAPER, cnn=None))


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_are_those_of_the_kernel(name):
    """Values summed with the recorded weights are what each attention module put out in the same
    pass.
    """
    model, outputs = tiny(VARIANTS[name]).eval(), []
    modules = [m for m in model.fusion.modules() if isinstance(m, Attention)]
    handles = [m.register_forward_hook(lambda m, i, o: outputs.append((m, i, o))) for m in modules]
    with torch.no_grad():
        plain = model(pictures(), CAMERAS).features
        outputs.clear()
        with explain.record_attention(model) as maps:
            features = model(pictures(), CAMERAS).features
    assert all(torch.equal(features[key], plain[key]) for key in plain)
    assert len(outputs) == len(maps) == 8
    for handle in handles:
        handle.remove()
    # Units run layer by layer, SEU before MFU, CNN before Transformer.
    order = [
        (layer, unit, branch)
        for layer in (1, 2)
        for unit in ("seu", "mfu")
        for branch in ("cnn", "transformer")
    ]
    for key, (module, inputs, output) in zip(order, outputs, strict=True):
        weights = rearrange(maps[key], "b heads h w -> b heads (h w)")
        _, context = inputs
        value = rearrange(module.v(context), "b n (h d) -> b h n d", h=module.heads)
        if key[1] == "seu":
            to_itself = 1 - weights.sum(dim=-1, keepdim=True)
            weights = torch.cat([to_itself, weights], dim=-1)
        else:
            torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, module.heads))
        mixed = rearrange(weights[:, :, None] @ value, "b h 1 d -> b (h d)")
        torch.testing.assert_close(module.proj(mixed), output[:, 0], rtol=1e-4, atol=1e-5)


def test_attention_grids_and_no_trace():
    model = tiny()
    model.fusion.pool.eval()
    before = [(m, m.training) for m in model.modules()], hooks(model)
    maps = attention_maps(model)
    own, other, heads = model.grids["transformer"], model.grids["cnn"], model.config.fusion.heads
    assert own != other and own[0] != own[1]
    assert maps[1, "seu", "transformer"].shape == maps[2, "mfu", "cnn"].shape == (3, heads, *own)
    assert maps[1, "seu", "cnn"].shape == maps[2, "mfu", "transformer"].shape == (3, heads, *other)
    assert [(m, m.training) for m in model.modules()] == before[0] and hooks(model) == before[
        1
    ] == 0
    assert all(
        parameter.requires_grad
        for name, parameter in model.named_parameters()
        if "norm.bias" not in name
    )
    with pytest.raises(RuntimeError, match="stop"), explain.record_attention(model):
        raise RuntimeError("stop")
    assert hooks(model) == 0


def test_attention_needs_htms():
    with pytest.raises(ValueError, match="HTM"):
        attention_maps(tiny(replace(PAPER, fusion=None)))


@pytest.mark.parametrize("target", ["similarity", "class"])
def test_ten_maps_and_no_trace(trio, target):
    for model in trio:
        model.train()
    gradient = torch.ones_like(trio[0].necks["cnn"].classifier.weight)
    trio[0].necks["cnn"].classifier.weight.grad = gradient
    targets = {
        "similarity": lambda model: explain.similarity_targets(model, pictures(1), CAMERAS),
        "class": lambda model: explain.class_targets(model, [0, 1, 4]),
    }
    maps = explain.gradcam_maps(trio, pictures(), targets[target], CAMERAS)
    names = ["alone", "before LRU", "after LRU", "after HTM 1", "after HTM 2"]
    assert list(maps) == [(branch, name) for branch in ("cnn", "transformer") for name in names]
    for (branch, _), values in maps.items():
        assert values.shape == (3, *trio[0].grids[branch])
        assert (
            torch.equal(values.amax(dim=(1, 2)), torch.ones(3))
            and (values.std(dim=(1, 2)) > 0.01).all()
        )
    drawn = list(maps.values())
    same = [
        a.shape == b.shape and torch.allclose(a, b, atol=1e-3)
        for i, a in enumerate(drawn)
        for b in drawn[:i]
    ]
    assert not any(same), "two maps are one"
    for model in trio:
        assert hooks(model) == 0 and all(module.training for module in model.modules())
        grads = {name for name, p in model.named_parameters() if p.grad is not None}
        assert grads <= {"necks.cnn.classifier.weight"}
        assert all(
            p.requires_grad for name, p in model.named_parameters() if "norm.bias" not in name
        )
    assert torch.equal(trio[0].necks["cnn"].classifier.weight.grad, gradient)
    trio[0].necks["cnn"].classifier.weight.grad = None


@pytest.mark.parametrize("name", ["released", "own_seu", "t2t"])
def test_every_stage_of_other_variants(name):
    model = tiny(VARIANTS[name])
    targets = explain.similarity_targets(model, pictures(1), CAMERAS)
    for branch in ("cnn", "transformer"):
        found = explain.stages(model, branch, pictures(number=1))
        assert len(found) == 4
        for stage in found.values():
            assert explain.gradcam(model, stage, pictures(), targets, CAMERAS).shape == (
                3,
                *model.grids[branch],
            )


def test_gradient_at_a_stage_is_that_of_the_whole_graph(trio):
    """The tap cuts the graph below the stage; the gradient at the stage stays the same."""
    model = trio[0].eval()
    target = explain.similarity_targets(model, pictures(1), CAMERAS)[0]
    stage = explain.stages(model, "cnn", pictures(number=1))["after LRU"]
    seen = []
    handle = stage.layer.register_forward_hook(
        lambda _m, _i, output: (output.retain_grad(), seen.append(output))[1]
    )
    target(model.embed(pictures(), CAMERAS)[0]).backward()
    handle.remove()
    model.zero_grad()
    tapped = explain._Tapped(model, stage, CAMERAS)
    tapped.tap.register_forward_hook(
        lambda _m, _i, output: (output.retain_grad(), seen.append(output))[1]
    )
    target(tapped(pictures())[0]).backward()
    model.zero_grad()
    torch.testing.assert_close(seen[1].grad, seen[0].grad)


def test_centred_is_plain_for_the_cosine_of_an_average_pooled_map():
    """Cosine similarity does not change with length, so after average pooling the weighted sum is
    zero on average.
    """
    from pytorch_grad_cam import GradCAM

    model = tiny(replace(PAPER, transformer=None)).eval()
    model.branches["cnn"].pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    vector = torch.rand(model.widths["cnn"])
    targets = [lambda embedding: F.cosine_similarity(embedding, vector, dim=0)] * 3
    stage = explain.stages(model, "cnn", pictures(number=1))["alone"]
    centred = explain.gradcam(model, stage, pictures(), targets)
    plain = explain.gradcam(model, stage, pictures(), targets, method=GradCAM)
    torch.testing.assert_close(centred, plain, rtol=0, atol=1e-3)


def test_similarity_is_that_above_the_average_person(trio):
    """The targets that rank a gallery: the same for every image that is like the average."""
    model = trio[0].eval()
    mean = torch.arange(sum(model.widths.values())).float()
    for part, name in zip(mean.split(list(model.widths.values())), model.widths, strict=True):
        model.necks[name].norm.running_mean.copy_(part)
    targets = explain.similarity_targets(model, pictures(1), CAMERAS)
    with torch.no_grad():
        vectors, others = model.embed(pictures(1), CAMERAS), model.embed(pictures(), CAMERAS)
    for target, vector, other in zip(targets, vectors, others, strict=True):
        torch.testing.assert_close(target(other) - target(mean), (other - mean) @ (vector - mean))
    for name in model.widths:
        model.necks[name].norm.running_mean.zero_()


def test_an_empty_map_is_an_error(trio):
    """The patch tokens that leave a single Transformer do not reach its feature: that stage is
    refused, not drawn.
    """
    model = trio[2].eval()
    targets = explain.similarity_targets(model, pictures(1))
    stage = explain.Stage(model.branches["transformer"], model.grids["transformer"])
    with pytest.raises(ValueError, match="nothing reads"):
        explain.gradcam(model, stage, pictures(), targets)
    stage = explain.stages(trio[1], "cnn", pictures(number=1))["alone"]
    with pytest.raises(ValueError, match="image 0: expected a map that varies, found 0 to 0"):
        explain.gradcam(trio[1], stage, pictures(), [lambda embedding: 0 * embedding.sum()] * 3)


def test_pairs_are_of_one_person_and_two_cameras(tiny_dataset):
    queries, seconds = explain.pairs(tiny_dataset, 3, seed=1)
    assert len({record.identity for record in queries}) == 3
    assert all(
        a.identity == b.identity and a.camera != b.camera
        for a, b in zip(queries, seconds, strict=True)
    )
    assert explain.pairs(tiny_dataset, 3, seed=1) == (queries, seconds)
    assert len(explain.pairs(tiny_dataset, 99)[0]) == 4
    splits = {}
    for split, records in tiny_dataset.splits.items():
        splits[split] = [record._replace(camera=-1) for record in records]
    queries, seconds = explain.pairs(replace(tiny_dataset, **splits), 99)
    assert len(queries) == 4, "without cameras every image of the person is a match"
    assert [a.identity for a in queries] == [b.identity for b in seconds]


def test_clear_errors(trio):
    with pytest.raises(ValueError, match="expected 3, one for each image, found 1"):
        stage = explain.stages(trio[1], "cnn", pictures(number=1))["alone"]
        explain.gradcam(
            trio[1], stage, pictures(), explain.similarity_targets(trio[1], pictures(1, number=1))
        )
    with pytest.raises(ValueError, match="seu"):
        explain.stages(
            tiny(replace(PAPER, fusion=replace(PAPER.fusion, units=("mfu",)))),
            "cnn",
            pictures(number=1),
        )
