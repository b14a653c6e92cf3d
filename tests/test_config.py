"""Configurations: presets, profiles, fingerprints, and what is wrong with a wrong one."""

from dataclasses import replace

import pytest

from fusionreid.config import (
    FEATURES,
    LABELS,
    PAPER,
    PROFILES,
    RELEASED,
    SYMBOLS,
    DataConfig,
    FusionConfig,
    ModelConfig,
    TrainConfig,
    profile,
)


def test_presets_differ_where_the_released_code_does():
    changed = {name for name in vars(PAPER) if getattr(PAPER, name) != getattr(RELEASED, name)}
    assert changed == {"stem", "fusion"}
    inside = {name for name in vars(PAPER.fusion) if getattr(PAPER.fusion, name) != getattr(RELEASED.fusion, name)}
    assert inside == {"kernel", "seu_norm"}
    assert ModelConfig() == PAPER


def test_one_branch_has_nothing_to_fuse():
    assert ModelConfig(cnn=None).fusion is None
    assert ModelConfig(transformer=None).fusion is None


def test_lists_become_tuples():
    config = ModelConfig(image_size=[256, 128], fusion=FusionConfig(units=["mfu"]))
    assert hash(config) == hash(replace(PAPER, fusion=FusionConfig(units=("mfu",))))


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("dim", [384, 576, 768, 1152, 1536])
def test_profiles_scale_every_dimension(name, dim):
    scaled = PROFILES[name].scale(replace(PAPER, fusion=FusionConfig(dim=dim)))
    assert scaled.fusion.dim * PROFILES[name].dim_divisor == dim


def test_a_profile_is_found_by_name_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert profile("demo").name == profile(PROFILES["demo"]).name == "demo"
    with pytest.raises(ValueError, match="'smoky' is not known; it is one of: 'smoke', 'demo', 'paper'"):
        profile("smoky")


def test_features_have_words_and_symbols():
    assert set(LABELS) == set(SYMBOLS) == {*FEATURES, "all"}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FusionConfig(dim=100), "dim=100 is not a multiple of heads=12"),
        (lambda: FusionConfig(units=("mfu", "mfu")), "FusionConfig.units"),
        (lambda: FusionConfig(units="seu"), "FusionConfig.units"),
        (lambda: FusionConfig(pooling="max"), "'gem', 'gap'"),
        (lambda: FusionConfig(depth=0), "at least one HTM"),
        (lambda: FusionConfig(refine=False), "fusion=None"),
        (lambda: ModelConfig(stem="none"), "'imagenet', 'released'"),
        (lambda: ModelConfig(stride=17), "1 to 16"),
        (lambda: ModelConfig(image_size=(256,)), "height, width"),
        (lambda: ModelConfig(cnn=None, transformer=None), "at least one branch"),
        (lambda: TrainConfig(images=1), "at least 2 x 2"),
        (lambda: TrainConfig(epochs=5), "warmup_epochs=10"),
        (lambda: TrainConfig(evaluate_every=0), "evaluate_every=0"),
        (lambda: TrainConfig(precision="fp8"), "'float32', 'bf16', 'fp16'"),
        (lambda: DataConfig(name="cuhk03"), "'market1501'"),
    ],
)
def test_wrong_fields_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
