"""The command line: options become the run they say; errors are one line."""

from dataclasses import replace

import pytest

from fusionreid import build_model
from fusionreid.__main__ import main, parse, run_of
from fusionreid.config import PAPER, RELEASED, profile
from fusionreid.models import released
from fusionreid.training.train import learning_rate


def test_default_options_are_the_profile_s_run():
    assert run_of(parse(["train"])) == profile("demo").run(PAPER)
    assert run_of(parse(["train", "--profile", "paper"])).cnn_weights == "imagenet"


def test_options_reach_the_run():
    run = run_of(
        parse(
            [
                "train",
                "--profile",
                "paper",
                "--dataset",
                "msmt17",
                "--cnn",
                "resnet101",
                "--stride",
                "16",
                "--image-size",
                "384",
                "128",
                "--epochs",
                "12",
                "--precision",
                "bf16",
                "--seed",
                "3",
                "--transformer-weights",
                "vit.safetensors",
                "--released",
            ]
        )
    )
    assert (run.data.name, run.seed, run.cnn_weights, run.transformer_weights) == (
        "msmt17",
        3,
        "imagenet",
        "vit.safetensors",
    )
    assert (run.model.cnn, run.model.stride, run.model.image_size) == ("resnet101", 16, (384, 128))
    assert run.model.fusion == RELEASED.fusion
    assert (run.train.epochs, run.train.precision, run.train.schedule, run.train.bias_learning_rate) == (
        12,
        "bf16",
        "released",
        2,
    )


def test_one_branch():
    assert run_of(parse(["train", "--cnn", "none"])).model.cnn is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["train", "--profile", "huge"], "'smoke', 'demo', 'paper'"),
        (["train", "--dataset", "cuhk03"], "'market1501'"),
        (
            [
                "train",
                "--profile",
                "paper",
                "--dataset",
                "market1501",
                "--cnn-weights",
                "random",
                "--transformer-weights",
                "random",
            ],
            "bounding_box_train",
        ),
        (["evaluate", "nowhere.safetensors", "--dataset", "synthetic"], "nowhere.safetensors: no such checkpoint"),
        (["evaluate", "nowhere.pth", "--released", "--dataset", "synthetic"], "nowhere.pth: expected a file"),
        (["train", "--profile", "smoke", "--device", "bogus"], "--device bogus: expected a device of this machine"),
        (["train", "--profile", "smoke", "--device", "cuda:77"], "--device cuda:77: expected a device of this machine"),
        (["train", "--cnn", "vit_tiny_patch16_224", "--profile", "smoke"], "expected a CNN of timm"),
        (["train", "--profile", "smoke", "--epochs", "0"], "expected 0 to epochs=0 less 1"),
        (["train", "--profile", "smoke", "--epochs", "3", "--warmup-epochs", "3"], "expected 0 to epochs=3 less 1"),
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    options = ["--data-root", str(tmp_path)] + (["--runs-root", str(tmp_path)] if arguments[0] == "train" else [])
    assert main([*arguments, *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("fusionreid: ") and "Traceback" not in error


def test_few_epochs_have_a_short_warm_up():
    run = run_of(parse(["train", "--profile", "paper", "--epochs", "1"]))
    assert (run.train.epochs, run.train.warmup_epochs) == (1, 0) and learning_rate(run.train, 1) == 5e-3
    assert run_of(parse(["train", "--profile", "paper", "--epochs", "60"])).train.warmup_epochs == 10
    assert run_of(parse(["train", "--profile", "paper", "--warmup-epochs", "5"])).train.warmup_epochs == 5


def test_a_wrong_seed_is_named(capsys):
    with pytest.raises(SystemExit):
        parse(["train", "--seed", "-1"])
    assert "--seed: expected a whole number from 0, found '-1'" in capsys.readouterr().err


def test_a_released_checkpoint_is_evaluated(tiny_dataset, tmp_path, monkeypatch, capsys):
    config = replace(profile("smoke").scale(RELEASED), cnn="resnet18", transformer=None)
    released.save(build_model(config, 4), tmp_path / "theirs.pth")
    monkeypatch.setattr("fusionreid.models.released.deduce", lambda _: config)
    monkeypatch.setattr("fusionreid.__main__.open_data", lambda config, root: tiny_dataset)
    arguments = ["evaluate", str(tmp_path / "theirs.pth"), "--dataset", "market1501", "--data-root", str(tmp_path)]
    assert main([*arguments, "--released"]) == 0 and "market1501" in capsys.readouterr().out
    assert main(arguments) == 1 and "evaluate --released" in capsys.readouterr().err


def test_a_profile_that_is_asked_for_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert run_of(parse(["train"])) == profile("smoke").run(PAPER)
    assert run_of(parse(["train", "--profile", "demo"])).data.size == "demo"
