"""The command line: options become the run they say; errors are one line."""

import pytest

from fusionreid.__main__ import main, parse, run_of
from fusionreid.config import PAPER, RELEASED, profile


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
    ],
)
def test_errors_are_one_line(arguments, message, tmp_path, capsys):
    options = ["--data-root", str(tmp_path)] + (["--runs-root", str(tmp_path)] if arguments[0] == "train" else [])
    assert main([*arguments, *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("fusionreid: ") and "Traceback" not in error


def test_a_profile_that_is_asked_for_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("FUSIONREID_PROFILE", "smoke")
    assert run_of(parse(["train"])) == profile("smoke").run(PAPER)
    assert run_of(parse(["train", "--profile", "demo"])).data.size == "demo"
