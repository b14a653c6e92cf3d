"""The command line: `python -m fusionreid train | evaluate | experiments | data | reproduce`, or `fusionreid ...`."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import paths
from .config import DATASETS, PAPER, PROFILES, RELEASED, RELEASED_TRAINING, DataConfig, profile

LARGEST_SIDE = 4096  # pixels


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        limit = f" to {most}" if most else " or more"
        if not text.removeprefix("-").isdigit() or int(text) < least or (most and int(text) > most):
            raise argparse.ArgumentTypeError(f"expected a whole number, {least}{limit}, found {text!r}")
        return int(text)

    return parse


def device(text: str) -> str:
    """The type of an option that is a device of this machine."""
    import torch

    try:
        if torch.device(text).type == "meta":
            raise RuntimeError("no numbers can be computed on it")
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:  # the latter from a build of torch without CUDA
        why = str(error).strip().split("\n")[0]
        raise argparse.ArgumentTypeError(f"expected a device of this machine, found {text!r} ({why})") from error
    return text


def literal(text: str):
    """A literal where it is one (3, [0, 1], True), the text itself otherwise."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fusionreid", description="FusionReID, reproduced.")
    commands = top.add_subparsers(dest="command", required=True)

    def command(run: Callable, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(run.__name__, help=help, description=run.__doc__)
        made.set_defaults(run=run)
        return made

    one = command(train, "train a configuration, or load it if it is trained")
    one.add_argument("--released", action="store_true", help="compute and train as the authors' released code does")
    one.add_argument("--cnn", default=PAPER.cnn, help="default: %(default)s; 'none' leaves the branch out")
    one.add_argument("--transformer", default=PAPER.transformer, help="default: %(default)s; 'none' leaves it out")
    from_where = "'random', 'imagenet' (fetched by timm) or a file; default: the profile's, or a file in data/weights/"
    one.add_argument("--cnn-weights", help=from_where)
    one.add_argument("--transformer-weights", help="the same for the Transformer")
    side = whole(16, LARGEST_SIDE)
    one.add_argument("--image-size", type=side, nargs=2, default=PAPER.image_size, metavar=("HEIGHT", "WIDTH"))
    one.add_argument("--stride", type=whole(1, 16), default=PAPER.stride, help="of the ViT's patches; 16: no overlap")
    one.add_argument("--epochs", type=whole(1), help="default: the profile's")
    one.add_argument("--warmup-epochs", type=whole(0), help="default: the profile's, or fewer than --epochs")
    one.add_argument("--precision", choices=["float32", "bf16", "fp16"], help="default: the profile's")
    one.add_argument("--seed", type=whole(0), default=0)
    one.add_argument("--compile", action="store_true", help="torch.compile the model")
    one.add_argument("--restart", action="store_true", help="do not go on from an unfinished run's last epoch")

    other = command(evaluate, "rank one or several data sets by a trained model")
    other.add_argument("checkpoint", type=Path, help="runs/<fingerprint>/checkpoint.safetensors")
    other.add_argument("--released", action="store_true", help="the checkpoint is one of the authors' released code")
    other.add_argument(
        "--dataset", nargs="+", required=True, choices=DATASETS, metavar="NAME", help=", ".join(DATASETS)
    )
    other.add_argument("--size", default="demo", choices=PROFILE_SIZES, help="of the synthetic set (default: demo)")
    other.add_argument("--rerank", action="store_true", help="k-reciprocal re-ranking")
    other.add_argument("--precision", choices=["float32", "bf16", "fp16"], default="float32")

    many = command(experiments, "train the rows of tables and figures that are missing, and print the tables")
    many.add_argument("names", nargs="+", metavar="experiment", help="table1 to table6, figure5, figure6, or all")
    many.add_argument("--seeds", type=whole(0), nargs="+", default=[0])
    many.add_argument("--rows", nargs="+", metavar="ROW", help='only these, as "DFE + LRU" (default: all)')
    many.add_argument("--list", action="store_true", help="train nothing; say what there is to run")
    many.add_argument("--processes", type=whole(1), help="at once (default: one a core, or one a GPU)")
    many.add_argument("--devices", type=device, nargs="+", help="cpu, or cuda:0 cuda:1 ... (default: every GPU)")
    many.add_argument("--cluster", choices=["slurm", "local"], help="one job a run by submitit")

    sets = command(data, "check a data set, or render the synthetic one")
    sets.add_argument("action", choices=["check", "synthetic"])
    sets.add_argument("name", nargs="?", choices=DATASETS, default="synthetic", help="which to check")
    sets.add_argument("--size", default="demo", choices=PROFILE_SIZES, help="of the synthetic set (default: demo)")
    sets.add_argument("--seed", type=whole(0), default=0, help="of the synthetic set")
    sets.add_argument("--processes", type=whole(1), help="for rendering (default: one a core)")

    pages = command(reproduce, "run the notebooks")
    pages.add_argument("--only", nargs="+", metavar="NN", help="numbers or names of notebooks")
    pages.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a value for a notebooks' parameter; may be repeated",
    )  # fmt: skip
    pages.add_argument("--update", action="store_true", help="write the outputs into notebooks/, to be committed")

    for each in (one, other):
        each.add_argument("--device", type=device, help="default: the GPU, if there is one")
    for each in (one, many, pages):
        each.add_argument("--profile", choices=PROFILES, default=os.environ.get("FUSIONREID_PROFILE") or "demo",
                          help="default: $FUSIONREID_PROFILE, or demo")  # fmt: skip
        each.add_argument("--dataset", choices=DATASETS, help="default: the profile's")
    for each in (one, other, many, sets):
        each.add_argument("--root", "--data-root", dest="data_root", type=Path, default=paths.DATA,
                          help="the folder of the data sets (default: %(default)s)")  # fmt: skip
    for each in (one, many):
        each.add_argument("--runs-root", type=Path, default=paths.RUNS)
    return top


PROFILE_SIZES = ("smoke", "demo", "full")


def run_of(options: argparse.Namespace):
    """The run that the options of `train` describe."""
    from .training.runs import find_start, make_run

    scale = profile(options.profile)
    branches = {name: None if getattr(options, name) == "none" else getattr(options, name)
                for name in ("cnn", "transformer")}  # fmt: skip
    preset = RELEASED if options.released else PAPER
    config = replace(preset, image_size=tuple(options.image_size), stride=options.stride, **branches)
    data = replace(scale.data, name=options.dataset) if options.dataset else scale.data
    run = make_run(scale, config, seed=options.seed, data=data, data_root=options.data_root)
    given = ("epochs", "warmup_epochs", "precision")
    training = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    if "epochs" in training and "warmup_epochs" not in training:
        training["warmup_epochs"] = min(run.train.warmup_epochs, options.epochs - 1)
    if options.released:
        rates = ("schedule", "learning_rate_start", "learning_rate_end", "bias_learning_rate")
        training |= {name: getattr(RELEASED_TRAINING, name) for name in rates}
    starts = {
        f"{name}_start": find_start(source, branches[name])
        for name, source in (("cnn", options.cnn_weights), ("transformer", options.transformer_weights))
        if source
    }
    return replace(run, train=replace(run.train, **training), **starts)


def show(table) -> None:
    print(table.to_string(float_format=lambda value: f"{100 * value:.1f}"))


def train(options: argparse.Namespace) -> None:
    """Trains one configuration, or loads it if it is trained, and prints what each of its features reaches."""
    import pandas as pd

    from .evaluation.evaluate import evaluate
    from .training.train import train

    folder = train(
        run_of(options),
        evaluate,
        data_root=options.data_root,
        runs_root=options.runs_root,
        device=options.device,
        resume=not options.restart,
        compile=options.compile,
    )
    if int(os.environ.get("RANK", 0)):  # of several processes the first one speaks
        return
    result = folder.result
    print(
        f"{folder.path}: {result['data']['name']} {result['data']['version']}, seed {result['seed']}, "
        f"{result['epochs']} epochs, commit {result['commit']}, {result['device']}"
    )
    show(pd.DataFrame(result["features"]).T)


def evaluate(options: argparse.Namespace) -> None:
    """Ranks data sets by a checkpoint, with and without its camera embedding."""
    from .data.datasets import open_data
    from .devices import default_device
    from .evaluation.evaluate import cross_domain
    from .models import released
    from .training import checkpoint

    load = released.load if options.released else checkpoint.load
    model = load(options.checkpoint).to(options.device or default_device())
    sets = {name: open_data(DataConfig(name=name, size=options.size), options.data_root) for name in options.dataset}
    cache = paths.cache(options.data_root)
    rerank = options.rerank or None
    show(cross_domain(model, sets, cache_directory=cache, precision=options.precision, rerank=rerank))


def experiments(options: argparse.Namespace) -> None:
    """Trains what is missing of tables and figures, and prints them, the paper's numbers beside ours."""
    from . import jobs
    from .paper import compare, tables
    from .paper.experiments import EXPERIMENTS, plan, setting

    names = list(EXPERIMENTS) if "all" in options.names else options.names
    chosen = setting(profile(options.profile), options.dataset, options.seeds, options.runs_root, options.data_root)
    plan(names, chosen, rows=options.rows)  # an unknown name is an error before anything runs
    if options.list:
        for name in names:
            listed = compare.listing(name, chosen)
            listed = listed[listed["row"].isin(options.rows)] if options.rows else listed
            print(listed.to_string(index=False, na_rep=""))
        return
    failure = None
    try:
        jobs.run_all(
            names,
            chosen,
            rows=options.rows,
            processes=options.processes,
            devices=options.devices,
            data_root=options.data_root,
            cluster=options.cluster,
        )
    except jobs.RunsError as error:
        failure = error
    for name in names:
        print(f"\n{tables.comparison(name, chosen).markdown()}")
    if failure:
        raise failure


def data(options: argparse.Namespace) -> None:
    """Prints identities, images and cameras of a set beside the published ones, or renders the synthetic set."""
    if options.action == "synthetic":
        from .data.synthetic.build import build  # needs the optional package anny

        print(build(options.data_root, options.size, options.seed, processes=options.processes))
        return
    from .data import check, datasets

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.CountWarning)  # the verdict says it
        found = datasets.open_dataset(options.name, options.data_root, size=options.size, seed=options.seed)
    print(f"{found}\n\n{check.table(found)}\n\n{check.verdict(found)}".rstrip())


def reproduce(options: argparse.Namespace) -> None:
    """Runs the notebooks in order, headless; executed copies go to runs/notebooks/."""
    from .reproduce import reproduce

    given = {name: literal(value) for name, value in options.parameter}
    reproduce(options.profile, options.dataset, only=options.only, given=given, overwrite=options.update)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for a failure, 2 for a wrong argument, 130 for Ctrl-C."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("\nInterrupted. Finished runs are kept; the same command goes on from there.", file=sys.stderr)
        return 130
    except ValueError as error:
        print(f"fusionreid: {error}", file=sys.stderr)
        return 2
    except (OSError, ImportError, RuntimeError, FloatingPointError) as error:
        print(f"fusionreid: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
