"""Work that is killed at random moments and started again: does it end as undisturbed work does?

    python benchmarks/kills.py                # 100 kills of a training, in --minutes at most
    python benchmarks/kills.py --kills 4      # as in the tests
    python benchmarks/kills.py --of render    # of the synthetic set
    python benchmarks/kills.py --of notebook  # of `reproduce`, in notebook 03

Prints a table in Markdown; the exit code is 1 if anything differs. A trial is at smoke size, in a
folder of its own. SIGKILL ends it at a moment drawn from the length of undisturbed work, twice at
most; then it may finish. Compared are, of a training, on pictures of noise, the scores, the average
precision of each query and the digest of the weights; of rendering, the digest of every file; of
the notebook, the results of its runs and that every cell was executed; and that no temporary file
is left. Processes are forked, so that packages are imported once.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from fusionreid import paths
from fusionreid.config import DataConfig, profile
from fusionreid.data.synthetic.build import build
from fusionreid.files import read_json
from fusionreid.models import checkpoints
from fusionreid.reproduce import reproduce
from fusionreid.training.runs import RunConfig, RunFolder, make_run, with_versions
from fusionreid.training.train import train

FORK = multiprocessing.get_context("fork")
SPLITS = {  # people and cameras
    "bounding_box_train": (range(1, 5), range(4)),
    "query": (range(5, 9), range(1)),
    "bounding_box_test": (range(5, 9), range(1, 4)),
}


def write_pictures(folder: Path) -> None:
    """Eight people of noise in Market-1501's layout, seen by four cameras; four are to train on."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 210, (9, 3))
    for split, (people, cameras) in SPLITS.items():
        (folder / split).mkdir(parents=True)
        for person in people:
            for camera in cameras:
                pixels = random.normal(colours[person] + 8 * camera, 40, (64, 32, 3)).clip(0, 255)
                name = f"{person:04d}_c{camera + 1}s1_000001_00.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name)


class Kind(NamedTuple):
    """What is killed; each function takes the trial's folder."""

    work: Callable[[Path], None]
    stage: Callable[[Path], str]  # how far it has come, from its files
    outcome: Callable[[Path], dict]  # all that must be equal


def in_process(work: Callable[[Path], None], trial: Path) -> None:
    """In a process of its own: the work; what it says goes to a file."""
    os.environ["FUSIONREID_CACHE"] = str(trial / "cache")
    sys.stdout = sys.stderr = open(trial / "log.txt", "a")  # it ends with the process
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    work(trial)


def training(place: Path) -> Kind:
    write_pictures(place / "data" / "market1501")
    smoke = profile("smoke")
    scale = replace(smoke, train=replace(smoke.train, epochs=3, evaluate_every=2))
    run = make_run(scale, data=DataConfig(name="market1501", size="full"))
    run = with_versions(run, place / "data")

    def work(trial: Path) -> None:
        train(run, data_root=place / "data", runs_root=trial / "runs", device="cpu", progress=False)

    return Kind(work, partial(stage, run), partial(outcome, run))


def rendering(place: Path) -> Kind:
    def files(trial: Path) -> list[Path]:
        return sorted(path for path in (trial / "synthetic").rglob("*.*") if path.suffix != ".lock")

    def work(trial: Path) -> None:
        build(trial, "smoke", 0, progress=False)

    def digests(trial: Path) -> dict:
        found = {}
        for path in files(trial):
            content = hashlib.sha256(path.read_bytes())
            found[str(path.relative_to(trial))] = content.hexdigest()
        return found

    def stage(trial: Path) -> str:
        count = sum(path.suffix == ".jpg" for path in files(trial))
        if not count:
            return "before the first picture"
        return f"after {count // 20 * 20} pictures and more"

    return Kind(work, stage, digests)


def notebook(place: Path) -> Kind:
    def work(trial: Path) -> None:
        paths.RUNS = trial / "runs"
        os.environ |= {"FUSIONREID_RUNS": str(paths.RUNS), "OMP_NUM_THREADS": "1"}
        reproduce("smoke", only=["03"])

    def results(trial: Path) -> dict:
        runs = trial / "runs"
        found = {}
        for path in runs.glob("*/result.json"):
            found[path.parent.name] = read_json(path)["features"]
        (executed,) = (runs / "notebooks").rglob("03_*.ipynb")
        code = [cell for cell in read_json(executed)["cells"] if cell["cell_type"] == "code"]
        found["not executed"] = [cell["id"] for cell in code if not cell["execution_count"]]
        found["left over"] = [str(path) for path in runs.rglob(".*.*.*")]
        return found

    def stage(trial: Path) -> str:
        if list((trial / "runs").glob("*/result.json")):
            return "after the training"
        if list((trial / "runs").glob("*/config.json")):
            return "in the training"
        return "before the training"

    return Kind(work, stage, results)


def stage(run: RunConfig, trial: Path) -> str:
    folder = RunFolder(run, trial / "runs")
    if (folder.path / "result.json").exists():
        return "after the result"
    if list(folder.path.glob(".*")):
        return "while a file was written"
    if folder.checkpoint.exists():
        epoch = checkpoints.read_state(folder.checkpoint)["epoch"]
        return f"after epoch {epoch}" if epoch < run.train.epochs else "in the last evaluation"
    if list((trial / "cache").glob("*.images")):
        return "in epoch 1"
    return "while decoding" if (trial / "cache").exists() else "before decoding"


def outcome(run: RunConfig, trial: Path) -> dict:
    folder = RunFolder(run, trial / "runs")
    with np.load(folder.path / "average_precision.npz") as arrays:
        precision = {name: array.tolist() for name, array in arrays.items()}
    return {
        "scores": folder.result["features"],
        "precision": precision,
        "metrics": folder.metrics.drop(columns="seconds").to_csv(index=False),
        "weights": checkpoints.digest(folder.model()),
        "left over": [str(path) for path in folder.path.glob(".*")],
    }


KINDS = {"train": training, "render": rendering, "notebook": notebook}


def start(kind: Kind, trial: Path) -> multiprocessing.Process:
    process = FORK.Process(target=in_process, args=(kind.work, trial))
    process.start()
    return process


def finish(kind: Kind, trial: Path) -> dict:
    """The outcome of a trial that is not disturbed any more."""
    process = start(kind, trial)
    process.join()
    if process.exitcode:
        raise SystemExit(f"it did not continue after a kill:\n{(trial / 'log.txt').read_text()}")
    return kind.outcome(trial)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--of", choices=KINDS, default="train")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random = np.random.default_rng(given.seed)
    began = time.monotonic()
    killed = Counter()
    equal = Counter()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        kind = KINDS[given.of](place)
        trial = place / "whole"
        trial.mkdir()
        started = time.monotonic()
        expected = finish(kind, trial)
        seconds = time.monotonic() - started
        while sum(killed.values()) < given.kills and time.monotonic() - began < 60 * given.minutes:
            trial = Path(tempfile.mkdtemp(dir=place))
            stages = []
            for _ in range(min(2, given.kills - sum(killed.values()))):
                process = start(kind, trial)
                process.join(random.uniform(0, seconds))
                if process.exitcode is None:
                    process.kill()
                    process.join()
                    stages.append(kind.stage(trial))
            found = finish(kind, trial)
            killed.update(stages)
            if found == expected:
                equal.update(stages)
            for part in expected | found:
                one = found.get(part)
                other = expected.get(part)
                if one != other:
                    print(f"{stages}: {part} is {one!s:.200}, not {other!s:.200}", file=sys.stderr)
    print(f"| killed ({seconds:.1f} s undisturbed) | times | ended equal |\n|---|---|---|")
    for name in sorted(killed):
        print(f"| {name} | {killed[name]} | {equal[name]} |")
    print(f"| all | {sum(killed.values())} | {sum(equal.values())} |")
    return int(killed != equal or not killed)


if __name__ == "__main__":
    sys.exit(main())
