"""Configurations: presets, profiles, fingerprints, and what is wrong with a wrong one."""

from dataclasses import replace

import numpy as np
import pytest

from fusionreid import build_model
from fusionreid.config import (
    DATASETS,
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
from fusionreid.devices import autocast
from fusionreid.training.runs import RunConfig, make_run


def test_presets_differ_where_the_released_code_does():
    changed = {name for name in vars(PAPER) if getattr(PAPER, name) != getattr(RELEASED, name)}
    assert changed == {"stem", "fusion"}
    inside = {
        name
        for name in vars(PAPER.fusion)
        if getattr(PAPER.fusion, name) != getattr(RELEASED.fusion, name)
    }
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
    with pytest.raises(
        ValueError, match="'smoky' is not known; it is one of: 'smoke', 'demo', 'paper'"
    ):
        profile("smoky")


def test_features_have_words_and_symbols():
    assert set(LABELS) == set(SYMBOLS) == {*FEATURES, "all"}


def test_a_set_of_ones_own_has_its_own_name_and_is_whole():
    assert DATASETS["market1501"] == "Market1501" and DATASETS["mine"] == "mine"
    assert "mine" not in DATASETS
    assert DataConfig(name="mine", size="demo") == DataConfig(name="mine", size="full")
    assert DataConfig(name="mine.csv") == DataConfig(name="mine"), "one set, one name"
    assert DataConfig().size == "demo"
    whole = DataConfig(name="msmt17", size="full", seed=3)
    assert whole == DataConfig(name="msmt17", size="full"), "a whole set has no draws"
    assert DataConfig(name="msmt17", seed=3).seed == DataConfig(size="full", seed=3).seed == 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FusionConfig(dim=100), "dim=100 is not a multiple of heads=12"),
        (lambda: FusionConfig(units=("mfu", "mfu")), "FusionConfig.units"),
        (lambda: FusionConfig(units="seu"), "FusionConfig.units"),
        (lambda: FusionConfig(pooling="max"), "'gem', 'gap'"),
        (lambda: FusionConfig(depth=0), "FusionConfig.depth=0; expected a whole number from 1"),
        (lambda: FusionConfig(refine=False), "fusion=None"),
        (lambda: ModelConfig(stem="none"), "'imagenet', 'released'"),
        (lambda: ModelConfig(stride=17), "1 to 16"),
        (lambda: ModelConfig(image_size=(256,)), "height, width"),
        (lambda: ModelConfig(cnn=None, transformer=None), "at least one branch"),
        (lambda: TrainConfig(images=1), "TrainConfig.images=1; expected a whole number from 2"),
        (lambda: TrainConfig(epochs=5), "warmup_epochs=10"),
        (lambda: TrainConfig(evaluate_every=0), "evaluate_every=0"),
        (lambda: TrainConfig(precision="fp8"), "'float32', 'bf16', 'fp16'"),
        (lambda: DataConfig(name="a/mine"), "market1501, .* or the name of a set .*without its"),
        (lambda: DataConfig(name=""), "DataConfig.name=''; expected one of market1501"),
        (lambda: FusionConfig(dim="768"), "FusionConfig.dim='768'; expected a whole number from 1"),
        (lambda: FusionConfig(depth=1.5), "FusionConfig.depth=1.5; expected a whole number"),
        (lambda: FusionConfig(units=None), r"FusionConfig.units=None; expected tuple\[str, ...\]"),
        (lambda: FusionConfig(refine="no"), "FusionConfig.refine='no'; expected bool"),
        (lambda: FusionConfig(heads=True), "FusionConfig.heads=True; expected a whole number"),
        (
            lambda: ModelConfig(image_size=128),
            r"ModelConfig.image_size=128; expected tuple\[int, int\]",
        ),
        (lambda: ModelConfig(image_size=("256", "128")), "expected tuple"),
        (lambda: ModelConfig(image_size=(256.0, 128.0)), "expected tuple"),
        (lambda: ModelConfig(cnn=50), "ModelConfig.cnn=50; expected str | None"),
        (lambda: ModelConfig(cnn="", transformer=None), "at least one branch"),
        (
            lambda: ModelConfig(fusion={"dim": 768}),
            "expected fusionreid.config.FusionConfig | None",
        ),
        (lambda: ModelConfig(drop_path=1.5), "drop_path=1.5; expected a number from 0 to 1"),
        (lambda: ModelConfig(camera_scale=float("inf")), "camera_scale=inf; expected a number"),
        (
            lambda: TrainConfig(learning_rate=-0.1),
            "TrainConfig.learning_rate=-0.1; expected a number from 0",
        ),
        (
            lambda: TrainConfig(learning_rate="0.1"),
            "TrainConfig.learning_rate='0.1'; expected a number",
        ),
        (
            lambda: TrainConfig(learning_rate_end=float("nan")),
            "learning_rate_end=nan; expected a number from 0",
        ),
        (lambda: TrainConfig(weight_decay=-1), "weight_decay=-1"),
        (lambda: TrainConfig(momentum=1.5), "momentum=1.5; expected a number from 0 to 1"),
        (lambda: TrainConfig(padding=-1), "padding=-1; expected a whole number from 0"),
        (lambda: TrainConfig(flip=2), "flip=2; expected a number from 0 to 1"),
        (lambda: TrainConfig(epochs="3"), "epochs='3'; expected a whole number"),
        (lambda: TrainConfig(optimizer=["sgd"]), r"optimizer=\['sgd'\] is not known"),
        (lambda: DataConfig(seed=-1), "DataConfig.seed=-1; expected a whole number from 0"),
        (lambda: DataConfig(seed="1"), "DataConfig.seed='1'; expected a whole number from 0"),
        (lambda: RunConfig(seed=-1), "RunConfig.seed=-1; expected a whole number from 0"),
        (
            lambda: make_run("smoke", "PAPER"),
            "config='PAPER'; expected fusionreid.config.ModelConfig",
        ),
        (lambda: build_model("PAPER", 4), "config='PAPER'; expected fusionreid.config.ModelConfig"),
        (lambda: build_model(PAPER, "4"), "num_classes='4'; expected a whole number from 1"),
        (lambda: build_model(PAPER, 4, -1), "num_cameras=-1; expected a whole number from 0"),
        (lambda: build_model(PAPER, 4, pretrained=("resnet",)), "pretrained='resnet' is not known"),
        (
            lambda: autocast("cpu", "fp8"),
            "precision='fp8' is not known; it is one of: 'float32', 'bf16', 'fp16'",
        ),
    ],
)
def test_wrong_fields_are_named(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_whole_numbers_of_numpy_are_python_s():
    config = ModelConfig(stride=np.int64(12), fusion=FusionConfig(dim=np.int32(768)))
    assert (
        config == PAPER
        and RunConfig(config, seed=np.int64(0)).fingerprint == RunConfig().fingerprint
    )
