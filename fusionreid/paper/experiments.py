"""Each table and curve of the paper (Sec. IV) as a list of named variants; run what is missing, load what is there.

    python -m fusionreid.experiments table4 --profile demo --seeds 0 1 2 --processes 2

A variant is a `dataclasses.replace` of the full model at the paper's scale; a profile makes it smaller. Variants that
several tables hold have one fingerprint and are trained once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from .. import paths
from ..config import PAPER, PROFILES, ModelConfig, Profile, one_of
from ..config import profile as find_profile
from ..processes import bars
from ..training.runs import RunConfig, make_run
from . import numbers as paper
from . import results

EXPERIMENTS = paper.TABLES
DEPTHS = (1, 2, 3, 4, 5, 6)
# Multiples of 12 heads x 16, so that every profile's divisor leaves a multiple of 12.
DIMENSIONS = (384, 576, 768, 1152, 1536)
BACKBONES = {
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "T2T-ViT-14": "t2t_vit_14",
    "ViT-B/16*": "vit_base_patch16_224",
    "DeiT-B/16*": "deit_base_patch16_224",
}
_CNNS, _TRANSFORMERS = list(BACKBONES)[:3], list(BACKBONES)[3:]


@dataclass(frozen=True)
class Variant:
    """A row of a table, or a point of a curve.

    Attributes:
        name: as in the table; * is for overlapping patches, an arrow for 384 x 128, as in Table I.
        config: the model at the paper's scale; `config.profile(...).run(variant.config)` is the run.
        reported: what the paper prints (see `paper.reported` for the keys), in percent, millions and giga.
        note: what is to be said of those numbers; starts with "misprint" where one of them is.
    """

    name: str
    config: ModelConfig
    reported: dict[str, float] = field(default_factory=dict, hash=False)
    note: str = ""


def _fused(**changes) -> ModelConfig:
    return replace(PAPER, fusion=replace(PAPER.fusion, **changes))


def _configurations(name: str) -> dict[str, ModelConfig]:
    """{variant: model at the paper's scale} of one experiment."""
    if name == "table1":
        return {
            "FusionReID*": PAPER,
            "FusionReID": replace(PAPER, stride=16),
            "FusionReID* ↑": replace(PAPER, image_size=(384, 128)),
            "FusionReID ↑": replace(PAPER, image_size=(384, 128), stride=16),
        }
    if name == "table2":
        return {
            "ResNet50": replace(PAPER, transformer=None, fusion=None),
            "ViT-B/16*": replace(PAPER, cnn=None, fusion=None),
            "DFE": replace(PAPER, fusion=None),
            "DFE + LRU": _fused(units=()),
            "DFE + LRU + SEU": _fused(units=("seu",)),
            "DFE + LRU + MFU": _fused(units=("mfu",)),
            "FusionReID*": PAPER,
        }
    if name == "table3":
        return {
            "SEU, MFU": PAPER,
            "SEU only": _fused(units=("seu",)),
            "MFU, SEU": _fused(units=("mfu", "seu")),
            "MFU only": _fused(units=("mfu",)),
        }
    if name == "table4":
        words = {True: "shared", False: "unshared"}
        return {
            f"SEU {words[seu]}, MFU {words[mfu]}": _fused(share_seu=seu, share_mfu=mfu)
            for seu in (True, False)
            for mfu in (True, False)
        }
    if name == "table5":
        return {"GeM": PAPER, "GAP": _fused(pooling="gap")}
    if name == "table6":
        singles = {cnn: replace(PAPER, cnn=BACKBONES[cnn], transformer=None, fusion=None) for cnn in _CNNS}
        singles |= {vit: replace(PAPER, cnn=None, transformer=BACKBONES[vit], fusion=None) for vit in _TRANSFORMERS}
        pairs = {
            f"{cnn} + {vit}": replace(PAPER, cnn=BACKBONES[cnn], transformer=BACKBONES[vit])
            for cnn in _CNNS
            for vit in _TRANSFORMERS
        }
        return singles | pairs
    if name == "figure5":
        return {f"L = {depth}": _fused(depth=depth) for depth in DEPTHS}
    return {f"D = {dim}": _fused(dim=dim) for dim in DIMENSIONS}


def variants(name: str) -> list[Variant]:
    """The variants of one table or figure, in the paper's order, with what the paper reports of each.

    Args:
        name: "table1" to "table6", "figure5" or "figure6".

    Raises:
        ValueError: the name is not known.
    """
    one_of("experiment", name, EXPERIMENTS)
    reported, notes = paper.reported(name), paper.notes(name)
    return [
        Variant(variant, config, reported.get(variant, {}), notes.get(variant, ""))
        for variant, config in _configurations(name).items()
    ]


@dataclass(frozen=True)
class Job:
    """One run to do: what tells it apart in messages, and what `train` is called with."""

    name: str
    run: RunConfig
    train: Callable | None
    options: dict


def _do(job: Job, device: str) -> None:
    """Trains one run; in a worker, or in this process."""
    train = job.train
    if train is None:
        from ..training.train import train
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Is the set complete")  # said once, by `_prepare`
        train(job.run, device=device, **job.options)


def plan(
    names: str | Sequence[str],
    profile: str | Profile = "demo",
    *,
    dataset: str | None = None,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] | None = None,
) -> dict[str, RunConfig]:
    """The runs that experiments need, each once: {the names of the variants that it is, and the seed: the run}."""
    scale = find_profile(profile)
    data = results.data_of(scale, dataset)
    needed = [(name, each) for name in ([names] if isinstance(names, str) else names) for each in variants(name)]
    for row in rows or ():
        one_of("row", row, [variant.name for _, variant in needed])
    found: dict[str, tuple[list[str], RunConfig]] = {}
    for name, variant in needed:
        if rows and variant.name not in rows:
            continue
        for seed in seeds:
            run = make_run(scale, variant.config, seed=seed, data=data)
            found.setdefault(run.fingerprint, ([], run))[0].append(f"{name}: {variant.name}")
    return {f"{' = '.join(dict.fromkeys(labels))} (seed {run.seed})": run for labels, run in found.values()}


def run_all(
    names: str | Sequence[str],
    profile: str | Profile = "demo",
    *,
    dataset: str | None = None,
    seeds: Sequence[int] = (0,),
    rows: Sequence[str] | None = None,
    processes: int | None = None,
    devices: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
    progress: bool = True,
    cluster: str | dict | None = None,
    train: Callable | None = None,
) -> pd.DataFrame:
    """Trains the runs of some experiments that are missing, side by side; loads those that are there.

    Args:
        names: "table1" to "table6", "figure5", "figure6", or several of them.
        profile: "smoke", "demo" or "paper", or a `Profile` of your own.
        dataset: by default the profile's own.
        rows: names of variants; by default all.
        processes: at once; by default one a core, or one a GPU. On a CPU each has one thread. One means this process.
        devices: by default every GPU, or the CPU; the processes take turns on them.
        data_root, runs_root: by default `paths.DATA` and `paths.RUNS`.
        cluster: one Slurm job a run, by submitit: its parameters (`{"slurm_partition": "gpu", "gpus_per_node": 1}`), or
            the name of one of its executors ("slurm", "local"). `processes` then caps the jobs at once.
        train: instead of `fusionreid.training.train.train`; a function of a module.

    Returns:
        A row per run: columns `run` (the variants that it is), `fingerprint`, `seed`, `status` ("loaded" or "trained")
        and `seconds` of training.

    Raises:
        ExperimentError: some runs failed; named in the message, with their tracebacks. All others are done.
        KeyboardInterrupt: once the processes have stopped; every run goes on from its last epoch the next time.
        ValueError: an unknown experiment, row, profile or data set, or a damaged result.
    """
    data_root, runs_root = Path(data_root or paths.DATA), Path(runs_root or paths.RUNS)
    runs = plan(names, profile, dataset=dataset, seeds=seeds, rows=rows)
    missing = [name for name, run in runs.items() if results.read(run.fingerprint, runs_root) is None]
    options = {"data_root": data_root, "runs_root": runs_root, "progress": False}
    jobs = [Job(name, runs[name], train, options) for name in missing]
    errors: dict[str, str] = {}
    if jobs:
        if train is None:
            _prepare(jobs, data_root)
        with tqdm(total=len(runs), initial=len(runs) - len(jobs), desc="variants", disable=not bars(progress)) as bar:

            def report(index: int, error: str | None) -> None:
                if error:
                    errors[jobs[index].name] = error
                    tqdm.write(f"{jobs[index].name} failed: {error.strip().splitlines()[-1]}")
                bar.set_postfix_str(jobs[index].name[:60], refresh=False)
                bar.update()

            if cluster:
                workers.submit(_do, jobs, cluster, folder=runs_root / "cluster", limit=processes, report=report)
            else:
                workers.run(_do, jobs, processes=processes, devices=devices, report=report)
    if errors:
        raise ExperimentError(errors, len(runs))
    done = []
    for name, run in runs.items():
        status, result = "trained" if name in missing else "loaded", results.read(run.fingerprint, runs_root) or {}
        done.append((name, run.fingerprint, run.seed, status, result.get("seconds")))
    return pd.DataFrame(done, columns=["run", "fingerprint", "seed", "status", "seconds"])


class ExperimentError(RuntimeError):
    """Some runs failed while the others were done.

    Attributes:
        errors: {run: traceback}.
    """

    def __init__(self, errors: dict[str, str], total: int):
        self.errors = errors
        text = "\n\n".join(f"{name}\n{error.rstrip()}" for name, error in errors.items())
        super().__init__(f"{len(errors)} of {total} runs failed; the others are done and are kept.\n\n{text}")


def _prepare(jobs: Sequence[Job], data_root: Path) -> None:
    """Builds or opens each data set once, before several processes want it."""
    from ..training.train import open_data

    for data in dict.fromkeys(job.run.data for job in jobs):
        open_data(data, data_root)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m fusionreid.experiments`: runs experiments and prints their tables."""
    from .beside import expected
    from .tables import comparison

    parser = argparse.ArgumentParser(prog="python -m fusionreid.experiments", description=main.__doc__)
    parser.add_argument(
        "names",
        nargs="+",
        choices=[*EXPERIMENTS, "all"],
        metavar="experiment",
        help=f"{', '.join(EXPERIMENTS)}, or all",
    )
    parser.add_argument("--profile", help=f"{', '.join(PROFILES)} (default: $FUSIONREID_PROFILE, or demo)")
    parser.add_argument("--dataset", help="synthetic, market1501, dukemtmc or msmt17 (default: the profile's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", metavar="ROW", help='only these, as "DFE + LRU" (default: all)')
    parser.add_argument("--list", action="store_true", help="train nothing; say what there is to run")
    parser.add_argument("--processes", type=int, help="at once (default: one a core, or one a GPU)")
    parser.add_argument("--devices", nargs="+", help="cpu, or cuda:0 cuda:1 ... (default: every GPU, or the CPU)")
    parser.add_argument("--data-root", type=Path, default=paths.DATA)
    parser.add_argument("--runs-root", type=Path, default=paths.RUNS)
    parser.add_argument("--cluster", help="one job a run by submitit: slurm, local")
    chosen = parser.parse_args(arguments)
    names = list(EXPERIMENTS) if "all" in chosen.names else chosen.names
    shared = dict(dataset=chosen.dataset, seeds=chosen.seeds, runs_root=chosen.runs_root)
    status = 0
    try:
        scale = find_profile(chosen.profile)
        if chosen.list:
            plan(names, scale, rows=chosen.rows)
            listed = pd.concat(expected(name, scale, **shared) for name in names)
            listed = listed[listed["row"].isin(chosen.rows)] if chosen.rows else listed
            print(listed.to_string(index=False, na_rep=""))
            return 0
        run_all(
            names,
            scale,
            rows=chosen.rows,
            processes=chosen.processes,
            devices=chosen.devices,
            data_root=chosen.data_root,
            cluster=chosen.cluster,
            **shared,
        )
    except (ExperimentError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        if not isinstance(error, ExperimentError):
            return 2
        status = 1
    except KeyboardInterrupt:
        print("stopped; what is done is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    try:
        for name in names:
            print(f"\n{comparison(name, scale, **shared).markdown()}")
    except ValueError as error:  # a damaged result, or two versions of a data set
        print(error, file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    from .experiments import main as entry  # not __main__'s: workers import the functions by this name

    sys.exit(entry())
