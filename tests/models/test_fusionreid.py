"""The model: every variant forward and backward, shapes, order, single images, wrong arguments."""

import copy
from dataclasses import replace

import pytest
import torch

from fusionreid import PAPER, RELEASED, FusionConfig, build_model
from fusionreid.config import FEATURES, profile
from fusionreid.models import backbones
from fusionreid.paper.experiments import variants

SMOKE = profile("smoke")
TABLES = ("table1", "table2", "table3", "table4", "table5", "table6", "figure5", "figure6")
CONFIGS = {
    f"{table}: {variant.name}": variant.config for table in TABLES for variant in variants(table)
}
CONFIGS["released"] = RELEASED


def small(config=PAPER, **changes):
    return replace(SMOKE.scale(config), **changes)


def images(config, batch=4):
    return torch.randn(batch, 3, *config.image_size, generator=torch.Generator().manual_seed(0))


def model_of(config, cameras=6, classes=5):
    torch.manual_seed(0)
    return build_model(config, classes, cameras)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_variant(name):
    config = small(CONFIGS[name])
    model = model_of(config).train()
    output = model(images(config), torch.tensor([0, 5, -1, 2]))
    assert list(output.features) == [feature for feature in FEATURES if feature in model.widths]
    for feature, width in model.widths.items():
        assert output.features[feature].shape == (4, width)
        assert output.logits[feature].shape == (4, 5)
    sum(x.square().sum() for x in (*output.features.values(), *output.logits.values())).backward()
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name

    model.eval()
    with torch.no_grad():
        evaluated = model(images(config)[:1])  # a batch of one
        assert evaluated.logits is None
        assert torch.equal(
            model.embed(images(config)[:1]), torch.cat(list(evaluated.features.values()), dim=1)
        )


def test_features_of_the_paper():
    assert tuple(model_of(small()).widths) == FEATURES
    assert tuple(model_of(small(cnn=None)).widths) == ("transformer",)
    assert tuple(model_of(small(fusion=None)).widths) == ("cnn", "transformer")
    assert tuple(model_of(small(fusion=FusionConfig(units=(), dim=48))).widths) == FEATURES[:4]


@pytest.mark.parametrize(
    "size, stride, grid",
    [((256, 128), 12, (21, 10)), ((256, 128), 16, (16, 8)), ((384, 128), 12, (31, 10))],
)
def test_grids_at_paper_scale(size, stride, grid):
    with torch.device("meta"):
        model = build_model(replace(PAPER, image_size=size, stride=stride), 2)
    assert model.grids == {"cnn": (size[0] // 16, size[1] // 16), "transformer": grid}
    assert model.widths == {"cnn": 2048, "transformer": 768} | {name: 768 for name in FEATURES[2:]}


def test_order_of_units_matters():
    outputs = []
    for units in (("seu", "mfu"), ("mfu", "seu")):
        model = model_of(small(fusion=FusionConfig(dim=48, units=units))).eval()
        outputs.append(model.embed(images(model.config)))
    assert not torch.allclose(*outputs)


def test_deep_copy_is_independent():
    model = model_of(small()).eval()
    x = images(model.config)
    before = model.embed(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin.embed(x), before)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda m, x: m(x[:, :1]),
            r"images: expected floats \(batch, 3, 64, 32\), .*found torch.float32 \(4, 1, 64, 32\)",
        ),
        (lambda m, x: m(x[:, :, :32]), "images: expected floats"),
        (lambda m, x: m(x[0]), "images: expected floats"),
        (lambda m, x: m((x * 255).to(torch.uint8)), "images: expected floats .* torch.uint8"),
        (lambda m, x: m(x, torch.tensor([0, 1])), r"cameras: expected int64 \(4,\)"),
        (lambda m, x: m(x, torch.tensor([0.0, 1, 2, 3])), "cameras: .* found torch.float32"),
        (lambda m, x: m(x, torch.tensor([0, 1, 2, 6])), "cameras: expected 0 to 5"),
        (lambda m, x: m.train()(x[:1]), "at least two images"),
    ],
)
def test_wrong_input_is_named(make, message):
    model = model_of(small()).eval()
    with pytest.raises(ValueError, match=message):
        make(model, images(model.config))


@pytest.mark.parametrize(
    "pretrained, asked",
    [
        (False, []),
        (True, ["cnn", "transformer"]),
        (("cnn",), ["cnn"]),
        (["transformer"], ["transformer"]),
    ],
)
def test_imagenet_weights_are_fetched_for_the_branches_named(monkeypatch, pretrained, asked):
    fetched = []

    def create(name, pretrained, **options):
        if pretrained:
            fetched.append("transformer" if "vit" in name else "cnn")
        return real(name, False, **options)

    real = backbones.create
    monkeypatch.setattr(backbones, "create", create)
    build_model(small(), 5, pretrained=pretrained)
    assert fetched == asked


def test_an_unknown_branch_is_named():
    with pytest.raises(ValueError, match="pretrained='resnet' is not known"):
        build_model(small(), 5, pretrained=("resnet",))
