"""The command line: `python -m fusionreid train | evaluate | experiments | search | ...`, or `fusionreid ...`."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import paths
from .config import DATASETS, PAPER, PROFILES, RELEASED, RELEASED_TRAINING, DataConfig, profile
from .notebooks import NotebookError
from .options import Parser, device, literal, one_of, whole

SIZES = ("smoke", "demo", "pretrain", "full")  # of the synthetic set
FORMATS = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "torch"}  # by a file's suffix
PRECISIONS = ("float32", "bf16", "fp16")
MODEL = "'demo', runs/<fingerprint>, or a checkpoint's file, also the authors'"
SUMMARY = "{data[name]} {data[version]}, seed {seed}, {epochs} epochs, commit {commit}, {device}"  # of a result


def parser() -> argparse.ArgumentParser:
    scale, sets, runs, computes = (
        argparse.ArgumentParser(add_help=False) for _ in range(4)
    )  # shared options
    asked = os.environ.get("FUSIONREID_PROFILE") or "demo"
    scale.add_argument(
        "--profile", choices=PROFILES, default=asked, help="default: $FUSIONREID_PROFILE, or demo"
    )
    scale.add_argument("--dataset", choices=DATASETS, help="default: the profile's")
    root = {"dest": "data_root", "type": Path, "default": paths.DATA}
    sets.add_argument("--data-root", "--root", help="of data sets (default: %(default)s)", **root)
    runs.add_argument(
        "--runs-root", type=Path, default=paths.RUNS, help="of runs (default: %(default)s)"
    )
    computes.add_argument("--device", type=device, help="default: the GPU, if there is one")

    top = Parser(prog="fusionreid", description="FusionReID, reproduced.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(function: Callable, *parents: argparse.ArgumentParser) -> Callable:
        description = function.__doc__.split("\n")[0]
        made = commands.add_parser(
            function.__name__, parents=parents, help=description, description=description
        )
        made.set_defaults(function=function)
        return made.add_argument

    add = command(train, scale, sets, runs, computes)
    add(
        "--released",
        action="store_true",
        help="compute and train as the authors' released code does",
    )
    add("--cnn", default=PAPER.cnn, help="default: %(default)s; 'none' leaves the branch out")
    add(
        "--transformer",
        default=PAPER.transformer,
        help="default: %(default)s; 'none' leaves the branch out",
    )
    starts = "'random', 'imagenet' (fetched by timm) or a file (default: the profile's, or data/weights/<backbone>.pth)"
    add("--cnn-weights", help=starts)
    add("--transformer-weights", help="the same for the Transformer")
    side = {"type": whole(16, 4096), "metavar": ("HEIGHT", "WIDTH")}
    add(
        "--image-size",
        nargs=2,
        default=PAPER.image_size,
        help="in pixels (default: 256 128)",
        **side,
    )
    add(
        "--stride",
        type=whole(1, 16),
        default=PAPER.stride,
        help="of the ViT's patches: 12 (default) overlaps, 16 not",
    )
    add("--epochs", type=whole(1), help="default: the profile's")
    add("--warmup-epochs", type=whole(0), help="default: the profile's, and fewer than --epochs")
    add("--precision", choices=PRECISIONS, help="default: the profile's")
    add("--seed", type=whole(0), default=0, help="default: %(default)s")
    add("--compile", action="store_true", help="torch.compile the model")
    add("--restart", action="store_true", help="begin an unfinished run anew")

    add = command(evaluate, sets, computes)
    add("model", help=MODEL)
    add(
        "--dataset",
        nargs="+",
        required=True,
        choices=DATASETS,
        metavar="NAME",
        help=", ".join(DATASETS),
    )
    add("--size", choices=SIZES, default="demo", help="of the synthetic set (default: %(default)s)")
    add("--rerank", action="store_true", help="k-reciprocal re-ranking")
    add("--precision", choices=PRECISIONS, default="float32", help="default: %(default)s")

    add = command(search, computes)
    add(
        "gallery",
        type=Path,
        metavar="GALLERY_FOLDER",
        help="pictures of people, in folders below too",
    )
    add("queries", type=Path, nargs="+", metavar="QUERY_IMAGE")
    add("--top", type=whole(1), default=10, help="pictures for each query (default: %(default)s)")
    add("--model", default="demo", help=f"{MODEL} (default: %(default)s)")
    add(
        "--index",
        type=Path,
        help="folder of the gallery's features (default: GALLERY_FOLDER/.fusionreid)",
    )
    add("--to", type=Path, default="search.png", help="the contact sheet (default: %(default)s)")

    add = command(export)
    add("model", help=f"a finished run; for a graph {MODEL}")
    add("--to", type=Path, required=True, metavar="FILE", help=f"ends in {', '.join(FORMATS)}")
    add(
        "--format",
        choices=FORMATS.values(),
        help="weights in float16, or a graph (default: by the file's ending)",
    )

    add = command(experiments, scale, sets, runs)
    add(
        "names",
        nargs="+",
        metavar="experiment",
        help="table1 to table6, figure5, figure6, differences, or all",
    )
    add("--seeds", type=whole(0), nargs="+", default=[0], help="of training (default: 0)")
    add(
        "--data-seeds",
        type=whole(0),
        nargs="+",
        default=[0],
        help="of the synthetic set (default: 0)",
    )
    add("--rows", nargs="+", metavar="ROW", help='only these, as "DFE + LRU" (default: all)')
    add(
        "--status",
        action="store_true",
        help="train nothing; say what is done, running, queued, failed, missing",
    )
    add(
        "--record",
        action="store_true",
        help="add all finished runs of these seeds to the recorded ones, for git",
    )
    add("--processes", type=whole(1), help="at once (default: one a core, or one a GPU)")
    add(
        "--devices",
        type=device,
        nargs="+",
        help="cpu, or cuda:0 cuda:1 ... (default: every GPU, or the CPU)",
    )
    add("--cluster", choices=["slurm", "local"], help="one job a run, by submitit")
    value = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    add(
        "--job", help="of --cluster: what a job needs, as gpus_per_node 1; may be repeated", **value
    )

    add = command(data, sets)
    add("action", choices=["check", "synthetic"], help="check a set, or render the synthetic one")
    add("name", nargs="?", choices=DATASETS, default="synthetic", help="of the set to check")
    add("--size", choices=SIZES, default="demo", help="of the synthetic set (default: %(default)s)")
    add("--seed", type=whole(0), default=0, help="of the synthetic set (default: %(default)s)")
    add("--processes", type=whole(1), help="that render (default: one a core)")

    add = command(pretrain, sets, runs)
    add("names", nargs="*", metavar="stand-in", help="default: all")

    add = command(reproduce, scale)
    add("--only", nargs="+", metavar="NN", help="numbers or names of notebooks")
    add(
        "-p",
        "--parameter",
        help="a value for a parameter of the notebooks; may be repeated",
        **value,
    )
    add("--update", action="store_true", help="write the outputs into notebooks/, to be committed")
    return top


def run_of(options: argparse.Namespace):
    """The `RunConfig` that the options of `train` describe."""
    from .training.runs import make_run

    scale, preset = profile(options.profile), RELEASED if options.released else PAPER
    cnn, transformer = (
        None if name == "none" else name for name in (options.cnn, options.transformer)
    )
    config = replace(
        preset,
        cnn=cnn,
        transformer=transformer,
        image_size=options.image_size,
        stride=options.stride,
    )
    weights = {}
    for branch, file in ((cnn, options.cnn_weights), (transformer, options.transformer_weights)):
        if file and branch is None:
            raise ValueError(f"weights {file!r}: expected none for a branch that is left out")
        if file:
            weights[branch] = file
    training = {name: getattr(options, name) for name in ("epochs", "warmup_epochs", "precision")}
    if options.epochs and options.warmup_epochs is None:
        training["warmup_epochs"] = min(scale.train.warmup_epochs, options.epochs - 1)
    if options.released:
        rates = ("schedule", "learning_rate_start", "learning_rate_end", "bias_learning_rate")
        training |= {name: getattr(RELEASED_TRAINING, name) for name in rates}
    given = {name: value for name, value in training.items() if value is not None}
    scale = replace(scale, train=replace(scale.train, **given))
    data = replace(scale.data, name=options.dataset or scale.data.name)
    return make_run(scale, config, seed=options.seed, data=data, weights=weights)


def show(table) -> None:
    print(table.to_string(float_format=lambda value: f"{100 * value:.1f}"))


def train(options: argparse.Namespace) -> None:
    """Train a configuration, or load it if it is trained, and print what each feature reaches."""
    import pandas as pd

    from .training.train import train

    where = {
        "data_root": options.data_root,
        "runs_root": options.runs_root,
        "device": options.device,
    }
    folder = train(run_of(options), resume=not options.restart, compile=options.compile, **where)
    if int(os.environ.get("RANK", 0)) == 0:  # of several processes the first one speaks
        print(f"{folder.path}: {SUMMARY.format(**folder.result)}")
        show(pd.DataFrame(folder.result["features"]).T)


def evaluate(options: argparse.Namespace) -> None:
    """Rank data sets by a trained model, with and without its camera embedding."""
    from . import parallel
    from .data.datasets import open_data
    from .evaluation.evaluate import cross_domain
    from .training.trained import load

    state, device = parallel.start(options.device)
    model = load(options.model, device)
    sets = {
        name: open_data(
            DataConfig(name=name, size=options.size if name == "synthetic" else "full"),
            options.data_root,
        )
        for name in options.dataset
    }
    how = {"cache_directory": paths.cache(options.data_root), "precision": options.precision}
    found = cross_domain(
        model, sets, rerank=options.rerank or None, processes=state.num_processes, **how
    )
    if state.is_main_process:
        show(found)


def search(options: argparse.Namespace) -> None:
    """Find the most similar pictures in a folder: their paths and similarities, and a contact sheet."""
    from .evaluation.embedding import embed
    from .evaluation.gallery import SUFFIXES, Gallery, pictures_in, write_sheet
    from .training.trained import load

    one_of("the ending of --to", options.to.suffix.lower(), sorted(SUFFIXES))
    pictures = pictures_in(options.gallery)
    model = load(options.model, options.device)
    vectors = embed(model, options.queries)
    gallery = Gallery(
        options.index or options.gallery / ".fusionreid", model, pictures, progress=True
    )
    for why in gallery.unreadable.values():
        print(f"skipped {why}", file=sys.stderr)
    similarities, rows = gallery.search(vectors, options.top)
    ranked = zip(rows, similarities, strict=True)
    found = [
        [(gallery.paths[row], value) for row, value in zip(*each, strict=True)] for each in ranked
    ]
    for query, hits in zip(options.queries, found, strict=True):
        print(query, *(f"  {similarity:.4f}  {path}" for path, similarity in hits), sep="\n")
    write_sheet(options.to, options.queries, found)
    print(f"{len(gallery.paths)} pictures searched; contact sheet: {options.to}")


def export(options: argparse.Namespace) -> None:
    """Write a trained model as one file: small weights, or a graph for ONNX runtimes or torch.export."""
    from .evaluation.export import export
    from .training.trained import load, publish

    ending = options.to.suffix.lower()
    one_of(
        "the ending of --to",
        ending,
        [e for e, kind in FORMATS.items() if options.format in (None, kind)],
    )
    kind = FORMATS[ending]
    if kind == "safetensors":
        header = publish(options.model, options.to)
        print(SUMMARY.format(**header["result"]), f"digest {header['digest']}", sep=", ")
    else:
        export(load(options.model, "cpu"), options.to, kind)
    print(f"{options.to}: {options.to.stat().st_size / 1e6:.2f} MB")


def experiments(options: argparse.Namespace) -> int:
    """Train the runs of tables and figures that are missing, and print them beside the paper's numbers."""
    from .jobs import RunsError, run_all, states
    from .paper import recorded
    from .paper.experiments import EXPERIMENTS, plan, setting
    from .paper.tables import comparison

    names = [each for name in options.names for each in (EXPERIMENTS if name == "all" else [name])]
    data = profile(options.profile).data
    data = replace(data, name=options.dataset or data.name)
    if data.name != "synthetic" and options.data_seeds != [0]:
        raise ValueError(
            f"--data-seeds {options.data_seeds} are draws of the synthetic set, not of {data.name}"
        )
    settings = [
        setting(
            options.profile,
            replace(data, seed=seed),
            options.seeds,
            options.runs_root,
            options.data_root,
        )
        for seed in options.data_seeds
    ]
    plan(names, settings[0], rows=options.rows)  # an unknown name is an error before anything runs
    jobs = {name: getattr(options, name) for name in ("rows", "processes", "devices", "data_root")}
    needs = {name: literal(value) for name, value in options.job}
    if needs and not options.cluster:
        raise ValueError(
            f"--job {' '.join(options.job[0])}: expected --cluster with it, found none"
        )
    jobs["cluster"] = options.cluster and {"cluster": options.cluster, **needs}
    code = 0
    for chosen in settings:
        if options.status:
            found = states(plan(names, chosen, rows=options.rows), chosen.runs_root)
            print(
                found.to_string(index=False),
                found["state"].value_counts().to_string(header=False),
                sep="\n\n",
            )
            continue
        try:
            run_all(names, chosen, **jobs)
        except RunsError as error:
            code = 1
            print(f"fusionreid: {error}", file=sys.stderr)
        if options.record:
            print(
                f"{recorded.record(chosen, options.data_root)} runs recorded in {paths.RECORDED / 'recorded.csv'}"
            )
    for chosen in settings if not options.status else ():
        for name in names:
            print(f"\n{comparison(name, chosen).markdown()}")
    return code


def data(options: argparse.Namespace) -> None:
    """Print identities, images and cameras of a set beside the published ones, or render the synthetic set."""
    if options.action == "synthetic":
        from .data.synthetic.build import build  # needs the optional package anny

        print(build(options.data_root, options.size, options.seed, processes=options.processes))
        return
    from .data.datasets import open_dataset, table, verdict

    size = options.size if options.name == "synthetic" else "full"  # the whole set is checked
    found = open_dataset(options.name, options.data_root, size=size, seed=options.seed)
    print(f"{found}\n\n{table(found)}\n\n{verdict(found)}".rstrip())


def pretrain(options: argparse.Namespace) -> None:
    """Train the demo's small branches on other synthetic people, and write their weights to fusionreid/weights/."""
    from .pretrain import pretrain

    for path in pretrain(options.names, runs_root=options.runs_root, data_root=options.data_root):
        print(path)


def reproduce(options: argparse.Namespace) -> None:
    """Run the notebooks in order, without a browser; executed copies go to runs/notebooks/."""
    from .reproduce import reproduce

    given = {name: literal(value) for name, value in options.parameter}
    reproduce(
        options.profile, options.dataset, only=options.only, given=given, overwrite=options.update
    )


def say(warning: Warning | str, *_) -> None:
    """A warning on one line, without the line of code that gave it."""
    print("fusionreid: warning:", *str(warning).split(), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for a failure, 2 for a wrong argument or configuration, 130 for Ctrl-C."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = say
            options = parser().parse_args(arguments)
            places = [getattr(options, name, None) for name in ("data_root", "runs_root", "index")]
            for place in filter(None, [*places, paths.DATA, paths.RUNS, paths.RECORDED]):
                if place.is_file():
                    raise NotADirectoryError(f"{place}: expected a folder, found a file")
            return options.function(options) or 0
    except KeyboardInterrupt:
        print(
            "\nInterrupted. Finished runs are kept; the same command continues from there.",
            file=sys.stderr,
        )
        return 130
    except (ValueError, OSError, ImportError, FloatingPointError, NotebookError) as error:
        named = isinstance(error, OSError) and error.filename and error.strerror
        print(
            "fusionreid:",
            f"{error.filename}: {error.strerror}" if named else error,
            file=sys.stderr,
        )
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    sys.exit(main())
