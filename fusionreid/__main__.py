"""One model from a shell: `python -m fusionreid train ...`, `python -m fusionreid evaluate ...`.

Whole tables: `python -m fusionreid.experiments`. All notebooks: `make reproduce`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from . import paths
from .config import PAPER, RELEASED, RELEASED_TRAINING, DataConfig, profile
from .evaluation.evaluate import cross_domain, default_device
from .models import released
from .training import checkpoint
from .training.train import open_data, train


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fusionreid", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    one = commands.add_parser("train", help="train a configuration, or load it if it is trained")
    one.add_argument("--profile", help="smoke, demo or paper (default: $FUSIONREID_PROFILE, or demo)")
    one.add_argument("--dataset", help="market1501, dukemtmc, msmt17 or synthetic; default: the profile's")
    one.add_argument("--released", action="store_true", help="compute and train as the authors' released code does")
    one.add_argument("--cnn", default=PAPER.cnn, help="default: %(default)s; 'none' leaves the branch out")
    one.add_argument("--transformer", default=PAPER.transformer, help="default: %(default)s; 'none' leaves it out")
    one.add_argument(
        "--cnn-weights",
        help="'random', 'imagenet' (fetched by timm) or a file; default: the profile's, "
        f"or {paths.DATA}/weights/<backbone>.pth where there is one",
    )
    one.add_argument("--transformer-weights", help="the same for the Transformer")
    one.add_argument("--image-size", type=int, nargs=2, default=PAPER.image_size, metavar=("HEIGHT", "WIDTH"))
    one.add_argument(
        "--stride", type=int, default=PAPER.stride, help="of the ViT's patches; 12 overlaps (default), 16 does not"
    )
    one.add_argument("--epochs", type=int, help="default: the profile's")
    one.add_argument("--warmup-epochs", type=int, help="default: the profile's, where as many fit into --epochs")
    one.add_argument("--precision", choices=["float32", "bf16", "fp16"], help="default: the profile's")
    one.add_argument("--seed", type=_seed, default=0)
    one.add_argument("--device", help="default: the GPU, if there is one")
    one.add_argument("--compile", action="store_true", help="torch.compile the model")
    one.add_argument("--restart", action="store_true", help="do not go on from an unfinished run's last epoch")

    other = commands.add_parser("evaluate", help="rank one or several data sets by a trained model")
    other.add_argument("checkpoint", type=Path, help="runs/<fingerprint>/checkpoint.safetensors")
    other.add_argument("--released", action="store_true", help="the checkpoint is one of the authors' released code")
    other.add_argument("--dataset", nargs="+", required=True, help="market1501, dukemtmc, msmt17, synthetic")
    other.add_argument("--size", default="demo", help="of the synthetic set: smoke, demo (default) or full")
    other.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    other.add_argument("--precision", choices=["float32", "bf16", "fp16"], default="float32")
    other.add_argument("--device", help="default: the GPU, if there is one")
    for command in (one, other):
        command.add_argument("--data-root", type=Path, default=paths.DATA)
    one.add_argument("--runs-root", type=Path, default=paths.RUNS)
    return parser.parse_args(arguments)


def run_of(options: argparse.Namespace) -> RunConfig:
    """The run that the options of `train` describe."""
    scale = profile(options.profile)
    config = replace(
        RELEASED if options.released else PAPER,
        image_size=tuple(options.image_size),
        stride=options.stride,
        **{
            name: None if getattr(options, name) == "none" else getattr(options, name)
            for name in ("cnn", "transformer")
        },
    )
    data = replace(scale.data, name=options.dataset) if options.dataset else scale.data
    run = scale.run(config, seed=options.seed, data=data)
    given = ("epochs", "warmup_epochs", "precision")
    training = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    if "epochs" in training and "warmup_epochs" not in training:
        training["warmup_epochs"] = max(0, min(run.train.warmup_epochs, options.epochs - 1))
    if options.released:
        rates = ("schedule", "learning_rate_start", "learning_rate_end", "bias_learning_rate")
        training |= {name: getattr(RELEASED_TRAINING, name) for name in rates}
    weights = {
        name: getattr(options, name) for name in ("cnn_weights", "transformer_weights") if getattr(options, name)
    }
    return replace(run, train=replace(run.train, **training), **weights)


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0, found {text!r}")
    return int(text)


def chosen_device(options: argparse.Namespace) -> torch.device:
    """The device that was asked for, if it is there; by default the GPU, if there is one."""
    if options.device is None:
        return default_device()
    try:
        return torch.empty(0, device=options.device).device
    except (RuntimeError, AssertionError) as error:  # the latter from a build of torch without CUDA
        why = str(error).strip().split("\n")[0]
        raise ValueError(f"--device {options.device}: expected a device of this machine, found none ({why})") from error


def show(table: pd.DataFrame) -> None:
    print(table.to_string(float_format=lambda value: f"{100 * value:.1f}"))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        if options.command == "train":
            folder = train(
                run_of(options),
                data_root=options.data_root,
                runs_root=options.runs_root,
                device=chosen_device(options),
                resume=not options.restart,
                compile=options.compile,
            )
            if int(os.environ.get("RANK", 0)):  # of several processes the first one speaks
                return 0
            result = folder.result
            print(
                f"{folder.path}: {result['data']['name']} {result['data']['version']}, seed {result['seed']}, "
                f"{result['epochs']} epochs, commit {result['commit']}, {result['device']}"
            )
            show(pd.DataFrame(result["features"]).T)
        else:
            load = released.load if options.released else checkpoint.load
            model = load(options.checkpoint).to(chosen_device(options))
            sets = {
                name: open_data(DataConfig(name=name, size=options.size), options.data_root) for name in options.dataset
            }
            show(
                cross_domain(
                    model,
                    sets,
                    cache_directory=paths.cache(options.data_root),
                    precision=options.precision,
                    rerank=options.rerank or None,
                )
            )
    except (ValueError, FileNotFoundError, OSError, FloatingPointError) as error:
        print(f"fusionreid: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
