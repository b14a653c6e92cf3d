"""The command line: `python -m fusionreid train | evaluate | search | ...`, or `fusionreid ...`."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from . import jobs, parallel, paths
from .config import (
    DATASETS,
    PAPER,
    PRECISIONS,
    PROFILES,
    RELEASED,
    RELEASED_RECIPE,
    SIZES,
    DataConfig,
    TrainConfig,
    profile,
)
from .data import datasets
from .data.cache import unreadable
from .evaluation import verification
from .evaluation.embedding import device_of, embed
from .evaluation.evaluate import cross_domain, retrieve
from .evaluation.gallery import (
    SUFFIXES,
    Gallery,
    known_sheets,
    pictures_in,
    remember_sheets,
    write_sheet,
)
from .files import atomic_write
from .notebooks import NotebookError
from .options import Parser, device, literal, one_of, whole
from .paper import recorded, tables
from .paper.compare import results
from .paper.experiments import names_of, plan, setting
from .paper.numbers import TITLES
from .processes import speed
from .training.runs import RunConfig, make_run
from .training.trained import fine_tuned, load, publish, read_calibrations, write_calibrations

SETS = f"{', '.join(DATASETS)}, or your own: a folder in Market-1501's layout, or a CSV file"
MODEL = "'demo', runs/<fingerprint>, or a checkpoint's file, also the authors'"
WEIGHTS = "'random', 'imagenet' (fetched by timm) or a file (default: the profile's)"
# Options of `train` that are fields of TrainConfig, which checks their values.
TRAINING = {
    "epochs": "default: the profile's",
    "warmup_epochs": "default: the profile's, and fewer than --epochs",
    "learning_rate": "the highest (default: the profile's)",
    "identities": "P of a batch of P x K images (default: the profile's)",
    "images": "K of a batch (default: the profile's)",
    "precision": f"{', '.join(PRECISIONS)} (default: the profile's)",
}
RESULT = "{data[name]} {data[version]}, seed {seed}, {epochs} epochs, commit {commit}, {device}"


def shared(*names: str, **options) -> argparse.ArgumentParser:
    """An option that several commands share, as a parent of theirs."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(*names, **options)
    return parent


def parser() -> argparse.ArgumentParser:
    scale = shared(
        "--profile",
        choices=PROFILES,
        default=os.environ.get("FUSIONREID_PROFILE") or "demo",
        help="default: $FUSIONREID_PROFILE, or demo",
    )
    scale.add_argument("--dataset", metavar="NAME", help=f"{SETS} (default: the profile's)")
    which = shared(
        "--size",
        choices=SIZES,
        help="demo of a real set is a draw of its people (default: the profile's, if there is one;"
        " else demo of the synthetic set, and all of a real one)",
    )
    draw = shared(
        "--data-seed",
        type=whole(0),
        default=0,
        help="of the synthetic set or of a draw (default: %(default)s)",
    )
    sets = shared(
        "--data-root",
        "--root",
        type=Path,
        default=paths.DATA,
        help="of data sets (default: %(default)s)",
    )
    runs = shared(
        "--runs-root", type=Path, default=paths.RUNS, help="of runs (default: %(default)s)"
    )
    machine = shared("--device", type=device, help="default: the GPU, if there is one")
    prior = shared(
        "--prior",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="of genuine pairs among all pairs asked about (default: %(default)s)",
    )

    top = Parser(prog="fusionreid", description="FusionReID, reproduced.")
    commands = top.add_subparsers(required=True, metavar="command")

    def command(function: Callable, *parents: argparse.ArgumentParser) -> Callable:
        """Adds a command, named and described as its function; returns its `add_argument`."""
        words = function.__doc__
        added = commands.add_parser(
            function.__name__, parents=parents, help=words, description=words
        )
        added.set_defaults(function=function)
        return added.add_argument

    add = command(train, scale, which, draw, sets, runs, machine)
    add("--released", action="store_true", help="compute and train as the authors' code does")
    cnn_help = "default: %(default)s, or what stands for it; 'none' leaves the branch out"
    add("--cnn", default=PAPER.cnn, help=cnn_help)
    add("--transformer", default=PAPER.transformer, help="the same for the Transformer")
    add("--cnn-weights", help=WEIGHTS)
    add("--transformer-weights", help="the same for the Transformer")
    add("--start", metavar="MODEL", help=f"fine-tune a trained model: {MODEL}")
    add(
        "--image-size",
        nargs=2,
        type=whole(16, 4096),
        default=PAPER.image_size,
        metavar=("HEIGHT", "WIDTH"),
        help="at the paper's scale (default: 256 128, of which the demo makes 128 64)",
    )
    add(
        "--stride",
        type=whole(1, 16),
        default=PAPER.stride,
        help="of the ViT's patches: 12 (default) overlaps, 16 not",
    )
    for name, words in TRAINING.items():
        add(f"--{name.replace('_', '-')}", type=TrainConfig.__annotations__[name], help=words)
    add("--seed", type=whole(0), default=0, help="default: %(default)s")
    add("--compile", action="store_true", help="torch.compile the model")
    add("--restart", action="store_true", help="begin an unfinished run anew")

    add = command(evaluate, which, sets, machine)
    add("model", help=MODEL)
    add("--dataset", required=True, nargs="+", metavar="NAME", help=SETS)
    add("--rerank", action="store_true", help="k-reciprocal re-ranking")

    add = command(probe, draw, sets, machine)
    add("model", nargs="?", help=f"{MODEL} (default: demo)")
    add(
        "--features",
        type=Path,
        metavar="FILE",
        help="in place of a model: .npz, query and gallery in the order of the files",
    )
    add("--out", type=Path, metavar="CSV", help="the table with its intervals")

    add = command(verify, which, draw, sets, machine, prior)
    add("model", help=MODEL)
    add("--dataset", default="synthetic", metavar="NAME", help=f"{SETS} (default: %(default)s)")
    add(
        "--calibrate",
        action="store_true",
        help="on its training people, and keep that beside the model for search",
    )

    add = command(search, machine, prior)
    add("gallery", type=Path, metavar="GALLERY_FOLDER", help="pictures, in folders below too")
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
    add("model", help=f"a finished run; for ONNX {MODEL}")
    add(
        "--to",
        type=Path,
        required=True,
        metavar="FILE",
        help=".safetensors: the weights in float16; .onnx: a graph for ONNX runtimes",
    )

    add = command(experiments, scale, which, sets, runs)
    add(
        "names",
        nargs="+",
        metavar="experiment",
        help="table1 to table6, figure5, figure6, differences, or all",
    )
    seeds = {"type": whole(0), "nargs": "+", "default": [0]}
    add("--seeds", help="of training (default: 0)", **seeds)
    add("--data-seeds", help="of the synthetic set or of a draw (default: 0)", **seeds)
    add("--rows", nargs="+", metavar="ROW", help='only these, as "DFE + LRU" (default: all)')
    add(
        "--status",
        action="store_true",
        help="train nothing; say what is done, running, unfinished, missing",
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
    add("--job", help="what a job of --cluster needs, as gpus_per_node 1; repeatable", **value)

    add = command(data, which, sets)
    add("action", choices=["check", "synthetic"], help="check a set, or render the synthetic one")
    add("name", nargs="?", default="synthetic", help=SETS)
    add("--seed", type=whole(0), default=0, help="of that set or draw (default: 0)")

    add = command(pretrain, sets, runs)
    add("names", nargs="*", metavar="stand-in", help="default: all")

    add = command(reproduce, scale)
    add("--only", nargs="+", metavar="NN", help="numbers or names of notebooks")
    add("-p", "--parameter", help="a value for a parameter of the notebooks; repeatable", **value)
    add("--update", action="store_true", help="write the outputs into notebooks/, to be committed")
    add(
        "--all",
        action="append_const",
        dest="parameter",
        const=("ALL", "True"),
        help="train every row of every table",
    )
    return top


def place(name: str, root: Path) -> tuple[str, Path]:
    """The name of a set and where it lies; one's own may be given by its path."""
    path = Path(name)
    if os.sep in name or (path.suffix == ".csv" and path.is_file()):
        return path.name, path.parent
    return name, root


def data_of(options: argparse.Namespace, seed: int = 0) -> DataConfig:
    """The data set that the options of `train` or `experiments` name; sets its root in them."""
    default = profile(options.profile).data
    name, options.data_root = place(options.dataset or default.name, options.data_root)
    return DataConfig(name, options.size or default.size, seed)


def run_of(options: argparse.Namespace) -> RunConfig:
    """The run that the options of `train` describe."""
    preset = RELEASED if options.released else PAPER
    config = replace(
        preset,
        cnn=None if options.cnn == "none" else options.cnn,
        transformer=None if options.transformer == "none" else options.transformer,
        image_size=options.image_size,
        stride=options.stride,
    )
    given = {options.cnn: options.cnn_weights, options.transformer: options.transformer_weights}
    weights = {backbone: start for backbone, start in given.items() if start}

    scale = profile(options.profile)
    given = {name: getattr(options, name) for name in TRAINING}
    training = {name: value for name, value in given.items() if value is not None}
    if options.epochs:
        training.setdefault("warmup_epochs", min(scale.train.warmup_epochs, options.epochs - 1))
    if options.released:
        training = RELEASED_RECIPE | training
    scale = replace(scale, train=replace(scale.train, **training))
    data = data_of(options, options.data_seed)
    run = make_run(scale, config, seed=options.seed, data=data, weights=weights)
    if not options.start:
        return run
    if weights or config != preset:
        raise ValueError(
            f"--start {options.start}: its model is taken, and all its weights; "
            "expected no option that changes them"
        )
    return fine_tuned(run, options.start)


def train(options: argparse.Namespace) -> None:
    """Train a configuration, or load it if it is trained; print what each feature reaches."""
    from .training.train import train, without_cameras

    run = run_of(options)
    roots = {"data_root": options.data_root, "device": options.device}
    folder = train(
        run,
        runs_root=options.runs_root,
        resume=not options.restart,
        compile=options.compile,
        **roots,
    )
    unaware = without_cameras(folder, **roots)
    if int(os.environ.get("RANK", 0)) == 0:  # of several processes the first one speaks
        print(f"{folder.path}: {RESULT.format(**folder.result)}")
        metrics = folder.metrics
        if "images" in metrics:  # in the lines of epochs
            print(speed(int(metrics["images"].sum()), metrics["seconds"].sum()))
        table = pd.DataFrame(folder.result["features"]).T
        if unaware:
            columns = pd.DataFrame(unaware).T[["mAP", "rank-1"]]
            table = table.join(columns.add_suffix(" without cameras"))
        print_percent(table)


def evaluate(options: argparse.Namespace) -> None:
    """Rank data sets by a trained model, with and without its camera embedding."""
    state, device = parallel.start(options.device)
    model = load(options.model, device)
    sets = {name: opened(options, name) for name in options.dataset}
    table = cross_domain(
        model,
        sets,
        rerank=options.rerank,
        processes=state.num_processes,
        cache_directory=paths.cache(options.data_root),
    )
    if state.is_main_process:
        print_percent(table)
        for name, dataset in sets.items():
            if not dataset.num_cameras:
                print(f"{name} has no cameras: scored without the camera rule")


def opened(options: argparse.Namespace, given: str, seed: int = 0) -> datasets.Dataset:
    """The data set that the options of `evaluate` or `verify` name."""
    name, root = place(given, options.data_root)
    size = options.size or ("demo" if name == "synthetic" else "full")
    return datasets.open_data(DataConfig(name, size, seed), root)


def verify(options: argparse.Namespace) -> None:
    """Is it the same person? TAR at FAR, equal error rate, and whether probabilities come true."""
    model = load(options.model, options.device)
    dataset = opened(options, options.dataset, options.data_seed)
    cache = {"cache_directory": paths.cache(options.data_root)}
    device = device_of(model)
    retrievals = {}
    rates = {}
    for use, name in verification.CAMERAS.items():
        retrievals[use] = retrieve(model, dataset, use_cameras=use, **cache)
        for feature in ("all", *model.widths) if use else ("all",):
            found = verification.verify(retrievals[use], feature, device=device)
            rates[f"{feature}, {name}"] = found.rates
    print(f"{dataset}\n\n{found.genuine:,} genuine and {found.impostors:,} impostor pairs, in %:")
    print(pd.DataFrame(rates).T.map(str).to_string())

    if options.calibrate:
        calibrations = {
            use: verification.calibrate(model, dataset, use_cameras=use, **cache)
            for use in retrievals
        }
        data = f"{dataset.name} {dataset.version}"
        print(f"\nkept: {write_calibrations(options.model, model, data, calibrations)}")
    else:
        calibrations = read_calibrations(options.model, model)
    for use, calibration in calibrations.items():
        counts = verification.pairs_by_cosine(retrievals[use], device=device)
        table = verification.reliability(calibration, counts, options.prior)
        error = verification.calibration_error(table)
        name = verification.CAMERAS[use]
        print(f"\nProbabilities {name} (%), off by {100 * error:.1f} points in the mean:")
        print_percent(table)


def probe(options: argparse.Namespace) -> None:
    """Forced choices between people who differ in one cue: which features see which cues."""
    from .evaluation import probe

    if options.features and options.model:
        raise ValueError(f"expected a model or --features, found both: {options.model}")
    dataset = datasets.open_probe(options.data_root, options.data_seed)
    if options.features:
        choices = probe.of_file(options.features, dataset)
    else:
        model = load(options.model or "demo", options.device)
        choices = probe.of_model(model, dataset, cache_directory=paths.cache(options.data_root))
    table = probe.accuracies(choices)
    print(f"{dataset}\n\nRight choices (%; chance is 50):")
    index = ["kind", "cue", "strength"]
    print_percent(table.pivot_table("accuracy", index, "feature", sort=False))
    for stage in ("", "_refined", "_fused"):
        cnn = f"cnn{stage}"
        transformer = f"transformer{stage}"
        if {cnn, transformer} <= set(table["feature"]):
            print(f"{cnn} minus {transformer}: {probe.contrast(choices, cnn, transformer)}")
    if options.out:
        with atomic_write(options.out) as temporary:
            table.to_csv(temporary, index=False, float_format="%.4f")


def print_percent(table) -> None:
    print(table.to_string(float_format=lambda value: f"{100 * value:.1f}"))


def search(options: argparse.Namespace) -> None:
    """Find the most similar pictures in a folder: their paths, similarities, a contact sheet."""
    one_of("the ending of --to", options.to.suffix.lower(), SUFFIXES)
    index = options.index or options.gallery / ".fusionreid"
    sheets = known_sheets(index)
    if options.gallery.resolve() in options.to.resolve().parents:
        sheets = sheets | {options.to.resolve()}
    pictures = pictures_in(options.gallery, sheets)
    model = load(options.model, options.device)
    calibration = read_calibrations(options.model, model).get(False)  # pictures have no camera
    vectors = embed(model, options.queries)
    gallery = Gallery(index, model, pictures, progress=True)
    for reason in gallery.unreadable.values():
        print(f"skipped {reason}", file=sys.stderr)
    if gallery.embedded:
        print(speed(gallery.embedded, gallery.seconds), file=sys.stderr)
    similarities, rows = gallery.search(vectors, options.top)
    lists = []
    for query, nearest, values in zip(options.queries, rows, similarities, strict=True):
        hits = [(gallery.paths[row], value) for row, value in zip(nearest, values, strict=True)]
        lists.append(hits)
        print(query)
        for path, value in hits:
            same = ""
            if calibration:
                same = f"  same person: {calibration.probability(value, options.prior):.2f}"
            print(f"  {value:.4f}{same}  {path}")
    write_sheet(options.to, options.queries, lists)
    remember_sheets(index, sheets)
    print(f"{len(gallery.paths)} pictures searched; contact sheet: {options.to}")
    if calibration:
        print(f"same person: if {options.prior:.0%} of all pairs asked about are genuine (--prior)")


def export(options: argparse.Namespace) -> None:
    """Write a trained model as one file: its weights, or a graph for ONNX runtimes."""
    from .evaluation.export import export

    ending = options.to.suffix.lower()
    one_of("the ending of --to", ending, [".safetensors", ".onnx"])
    if ending == ".onnx":
        export(load(options.model, "cpu"), options.to)
    else:
        header = publish(options.model, options.to)
        print(f"{RESULT.format(**header['result'])}, digest {header['digest']}")
    print(f"{options.to}: {options.to.stat().st_size / 1e6:.2f} MB")


def experiments(options: argparse.Namespace) -> int:
    """Train the missing runs of tables and figures, and print them beside the paper's numbers."""
    names = names_of(TITLES if "all" in options.names else options.names)
    data = data_of(options)
    if data.name != "synthetic" and data.size != "demo" and options.data_seeds != [0]:
        raise ValueError(
            f"--data-seeds {options.data_seeds}: the whole of {data.name} has no draws; "
            "--size demo has"
        )
    cluster = None
    if options.cluster:
        needs = {name: literal(value) for name, value in options.job}
        cluster = {"cluster": options.cluster} | needs
    elif options.job:
        raise ValueError(
            f"--job {' '.join(options.job[0])}: expected --cluster with it, found none"
        )
    where = options.runs_root, options.data_root
    settings = []
    for seed in options.data_seeds:
        draw = replace(data, seed=seed)
        settings.append(setting(options.profile, draw, options.seeds, *where))
    if options.status:
        for chosen in settings:
            table = jobs.states(plan(names, chosen, rows=options.rows), chosen.runs_root)
            print(table.to_string(index=False))
            print(f"\n{table['state'].value_counts().to_string(header=False)}")
        return 0

    code = 0
    for chosen in settings:
        try:
            jobs.run_all(
                names,
                chosen,
                rows=options.rows,
                processes=options.processes,
                devices=options.devices,
                cluster=cluster,
            )
        except jobs.RunsError as error:
            code = 1
            print(f"fusionreid: {error}", file=sys.stderr)
        if options.record:
            count = recorded.record(chosen)
            print(f"{count} runs recorded in {paths.RECORDED / 'recorded.csv'}")
    for chosen in settings:
        measured = results(names, chosen)
        for name in names:
            print(f"\n{tables.comparison(measured, name).markdown()}")
    return code


def data(options: argparse.Namespace) -> int:
    """Check a set: its counts beside the published ones, and every picture; or render a set."""
    if options.action == "synthetic":
        from .data.synthetic.build import build  # needs the optional package anny

        print(build(options.data_root, options.size or "demo", options.seed))
        return 0
    name, root = place(options.name, options.data_root)
    dataset = datasets.open_dataset(name, root, size=options.size, seed=options.seed)
    counts = datasets.table(dataset)
    print(f"{dataset}\n\n{counts}\n\n{datasets.verdict(dataset)}".rstrip())
    pictures = [record.path for split in dataset.splits.values() for record in split]
    problems = unreadable(pictures)
    print(f"\n{len(problems)} of {len(pictures)} pictures cannot be read.")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def pretrain(options: argparse.Namespace) -> None:
    """Train the demo's small branches on other synthetic people, and write their weights."""
    from .pretrain import pretrain

    for path in pretrain(options.names, runs_root=options.runs_root, data_root=options.data_root):
        print(path)


def reproduce(options: argparse.Namespace) -> None:
    """Run the notebooks in order, without a browser; executed copies go to runs/notebooks/."""
    from .reproduce import reproduce

    reproduce(
        options.profile,
        options.dataset,
        only=options.only,
        given={name: literal(value) for name, value in options.parameter},
        overwrite=options.update,
    )


def print_warning(warning: Warning | str, *_) -> None:
    """A warning on one line, without the line of code that gave it."""
    print("fusionreid: warning:", *str(warning).split(), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns the exit code: 0, 1 for a failure, 2 for a wrong argument or configuration, 130 for
    Ctrl-C.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = print_warning
            options = parser().parse_args(arguments)
            given = [getattr(options, name, None) for name in ("data_root", "runs_root", "index")]
            for folder in (*given, paths.DATA, paths.RUNS, paths.RECORDED):
                if folder and folder.is_file():
                    raise NotADirectoryError(f"{folder}: expected a folder, found a file")
            return options.function(options) or 0
    except KeyboardInterrupt:
        kept = "Finished runs are kept; the same command continues from there."
        print(f"\nInterrupted. {kept}", file=sys.stderr)
        return 130
    except (
        ValueError,
        OSError,
        ImportError,
        FloatingPointError,
        NotebookError,
        jobs.RunsError,
    ) as error:
        message = error
        if isinstance(error, OSError) and error.filename and error.strerror:
            message = f"{error.filename}: {error.strerror}"
        print(f"fusionreid: {message}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


if __name__ == "__main__":
    sys.exit(main())
