"""Trainings that are killed at random moments and started again: are their numbers those of one that was not?

    python benchmarks/kills.py                     # 100 kills, or as many as fit in --minutes
    python benchmarks/kills.py --kills 4           # as in the tests

Prints a table in Markdown; the exit code is 1 if anything differs. A trial is a run of the smoke profile, on pictures
of noise, in a folder of its own with nothing decoded. SIGKILL ends it at a moment drawn from the length of a whole run,
twice at most; then it may finish. Compared are the scores, the average precision of each query, the checksums of the
trained weights, and that no temporary file is left. Processes are forked, so that packages are imported once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from fusionreid.config import DataConfig, profile
from fusionreid.evaluation.evaluate import evaluate
from fusionreid.training import checkpoint
from fusionreid.training.runs import RunConfig, RunFolder, make_run
from fusionreid.training.train import train

FORK = multiprocessing.get_context("fork")
SPLITS = {  # people and cameras
    "bounding_box_train": (range(1, 5), range(4)),
    "query": (range(5, 9), range(1)),
    "bounding_box_test": (range(5, 9), range(1, 4)),
}


def write_pictures(folder: Path) -> None:
    """Eight people of noise in Market-1501's layout, seen by four cameras; four people are trained on."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 210, (9, 3))
    for split, (people, cameras) in SPLITS.items():
        (folder / split).mkdir(parents=True)
        for person in people:
            for camera in cameras:
                pixels = random.normal(colours[person] + 8 * camera, 40, (64, 32, 3)).clip(0, 255)
                name = f"{person:04d}_c{camera + 1}s1_000001_00.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name)


def work(run: RunConfig, data: Path, trial: Path) -> None:
    """In a process of its own: the training; what it says goes to a file."""
    os.environ["FUSIONREID_CACHE"] = str(trial / "cache")
    sys.stdout = sys.stderr = open(trial / "log.txt", "a")  # a traceback too; it ends with the process
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    train(run, evaluate, data_root=data, runs_root=trial / "runs", device="cpu", progress=False)


def stage(run: RunConfig, trial: Path) -> str:
    """How far a trial has come, from its files."""
    folder = RunFolder(run, trial / "runs")
    if (folder.path / "result.json").exists():
        return "after the result"
    if list(folder.path.glob(".*")):
        return "while a file was written"
    if folder.checkpoint.exists():
        epoch = checkpoint.read_state(folder.checkpoint)["epoch"]
        return f"after epoch {epoch}" if epoch < run.train.epochs else "in the last evaluation"
    if list((trial / "cache").glob("*.images")):
        return "in epoch 1"
    return "while decoding" if (trial / "cache").exists() else "before decoding"


def outcome(run: RunConfig, trial: Path) -> dict:
    """All that must be equal."""
    folder = RunFolder(run, trial / "runs")
    with np.load(folder.path / "average_precision.npz") as arrays:
        precision = {name: array.tolist() for name, array in arrays.items()}
    with safe_open(folder.checkpoint, framework="np") as file:
        weights = json.loads(file.metadata()["checksums"])
    return {
        "scores": folder.result["features"],
        "precision": precision,
        "metrics": folder.metrics.drop(columns="seconds").to_csv(index=False),
        "weights": weights,
        "left over": [str(path) for path in folder.path.glob(".*")],
    }


def start(*arguments) -> multiprocessing.Process:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def finish(run: RunConfig, data: Path, trial: Path) -> dict:
    """The outcome of a trial that is not disturbed any more."""
    process = start(run, data, trial)
    process.join()
    if process.exitcode:
        raise SystemExit(f"a run did not continue after a kill:\n{(trial / 'log.txt').read_text()}")
    return outcome(run, trial)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    random, began = np.random.default_rng(given.seed), time.monotonic()
    killed, equal = Counter(), Counter()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        write_pictures(place / "data" / "market1501")
        smoke = profile("smoke")
        scale = replace(smoke, train=replace(smoke.train, epochs=3, evaluate_every=2))
        run = make_run(scale, data=DataConfig(name="market1501"), data_root=place / "data")
        trial = place / "whole"
        trial.mkdir()
        started = time.monotonic()
        expected = finish(run, place / "data", trial)
        seconds = time.monotonic() - started
        while sum(killed.values()) < given.kills and time.monotonic() - began < 60 * given.minutes:
            trial = Path(tempfile.mkdtemp(dir=place))
            stages = []
            for _ in range(min(2, given.kills - sum(killed.values()))):
                process = start(run, place / "data", trial)
                process.join(random.uniform(0, seconds))
                if process.exitcode is None:
                    process.kill()
                    process.join()
                    stages.append(stage(run, trial))
            found = finish(run, place / "data", trial)
            killed.update(stages)
            equal.update(stages if found == expected else [])
            for part in expected:
                if found[part] != expected[part]:
                    print(f"{stages}: {part} is {found[part]!s:.200}, not {expected[part]!s:.200}", file=sys.stderr)
    print(f"| killed ({seconds:.1f} s a run) | times | ended with equal numbers |\n|---|---|---|")
    for name in sorted(killed):
        print(f"| {name} | {killed[name]} | {equal[name]} |")
    print(f"| all | {sum(killed.values())} | {sum(equal.values())} |")
    return int(killed != equal or not killed)


if __name__ == "__main__":
    sys.exit(main())
