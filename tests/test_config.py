"""Configurations: presets, profiles, fingerprints, and what is wrong with a wrong one."""

from dataclasses import replace

import pytest

from fusionreid.config import (
    PAPER,
    PROFILES,
    RELEASED,
    DataConfig,
    FusionConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
    named_profile,
    profile,
)


def test_presets_differ_where_the_released_code_does():
    changed = {name for name in vars(PAPER) if getattr(PAPER, name) != getattr(RELEASED, name)}
    assert changed == {"stem", "fusion"}
    inside = {name for name in vars(PAPER.fusion) if getattr(PAPER.fusion, name) != getattr(RELEASED.fusion, name)}
    assert inside == {"kernel", "share_seu", "seu_norm", "mfu_residual"}
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


def test_fingerprints_name_what_the_numbers_depend_on(tmp_path):
    run = profile("demo").run()
    assert run.fingerprint == profile("demo").run().fingerprint
    (tmp_path / "a.pth").write_bytes(b"weights")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.pth").write_bytes(b"weights")
    others = [
        replace(run, seed=1),
        replace(run, data=DataConfig(seed=1)),
        replace(run, train=replace(run.train, epochs=21)),
        replace(run, model=replace(run.model, stride=16)),
        replace(run, cnn_weights="imagenet"),
        replace(run, cnn_weights=str(tmp_path / "a.pth")),
    ]
    assert len({run.fingerprint, *(other.fingerprint for other in others)}) == 7
    assert replace(run, model=PAPER, cnn_weights="imagenet").describe()["cnn_weights"] == "imagenet:tv_in1k"
    moved = replace(run, cnn_weights=str(tmp_path / "b" / "a.pth"))
    assert moved.fingerprint == others[-1].fingerprint
    assert str(tmp_path) not in str(moved.describe())
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        replace(run, cnn_weights="nowhere.pth").fingerprint  # noqa: B018


def test_weights_of_a_profile(tmp_path, monkeypatch):
    monkeypatch.setattr("fusionreid.paths.DATA", tmp_path)
    paper = profile("paper")
    assert paper.run().cnn_weights == paper.run().transformer_weights == "imagenet"
    assert paper.run(replace(PAPER, cnn=None)).cnn_weights == "random"
    assert paper.run(weights={"resnet50": "x.pth"}).cnn_weights == "x.pth"
    assert profile("demo").run().cnn_weights == "random"
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet50.pth").touch()
    assert paper.run().cnn_weights.endswith("resnet50.pth") and paper.run().transformer_weights == "imagenet"
    assert profile("demo").run().cnn_weights == "random"


def test_environment_wins(monkeypatch):
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert profile("demo").name == "smoke"
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoky")
    with pytest.raises(ValueError, match="'smoky' is not known; it is one of: 'smoke', 'demo', 'paper'"):
        profile("demo")
    assert profile(PROFILES["demo"]).name == "demo" and named_profile("demo").name == "demo"


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


def test_run_config_is_hashable():
    assert len({RunConfig(), RunConfig(), RunConfig(seed=1)}) == 2
