"""Everything that wants a GPU, on one card: speed, memory, precisions, ranking, people, tables.

    python benchmarks/gpu.py                             # every stage, for about an hour
    python benchmarks/gpu.py --only throughput kernels   # some stages
    python benchmarks/gpu.py --smallest --device cpu     # tries every stage, without a card

Each stage writes `gpu_<stage>_<device>` files (.json, .csv, pictures) to results/, and
`gpu_report_<device>.md` joins them. What is there, with the same settings, is not made again: the
same command goes on where it was cut off. After `--minutes` no further stage is begun. The exit
status is 0 once every stage that was asked for is there. `--smallest` is for trying the stages; it
writes to runs/gpu-smallest/, and its numbers mean nothing. Without a network, put ImageNet's
weights into data/weights/, or give `--start random` (by AdamW). What the stages measure is in
gpu_stages.py.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import gpu_stages as work
import pandas as pd
import torch
from gpu_stages import Where
from measure import RESULTS, SIZES, markdown

from fusionreid import paths
from fusionreid.devices import default_device, device_name, environment
from fusionreid.files import atomic_write, read_json, write_json, write_text
from fusionreid.processes import pool

TABLES = "table2 table3 table4 table5 differences figure5 figure6 table6 table1".split()
WORK = {
    "throughput": work.throughput,
    "kernels": work.kernels,
    "ranking": work.ranking,
    "render": work.render,
    "train": work.training,
    "agreement": work.agreement,
    "explained": work.explained,
    "compile": work.throughput,
} | dict.fromkeys(TABLES, work.table)


SMALLEST = {
    "throughput": {"profile": "smoke", "batches": [8], "precisions": ["bf16"], "repetitions": 1},
    "kernels": {"profile": "smoke", "batch": 8, "precision": "bf16"},
    "ranking": {"size": [40, 160, 10, 4], "widths": [8], "repetitions": 3},
    "train": {"profile": "smoke", "size": "smoke", "precision": "bf16", "epochs": 2},
    "explained": {"shown": 2, "scored": 4},
    "tables": {"profile": "smoke", "seeds": [0, 1], "data_seeds": [0], "processes": 1},
}
FULL = {
    "throughput": {
        "profile": "paper",
        "batches": [32, 64, 128, 256],
        "precisions": ["float32", "bf16", "fp16"],
        "repetitions": 20,
    },
    "kernels": {"profile": "paper", "batch": 128, "precision": "bf16"},
    "ranking": {"size": list(SIZES["msmt17"]), "widths": [64, 5888], "repetitions": 3},
    "train": {"profile": "paper", "size": "full", "precision": "bf16", "epochs": 30},
    "explained": {"shown": 6, "scored": 160},
    "tables": {"profile": "demo", "seeds": list(range(8)), "data_seeds": [0, 1], "processes": 8},
}


def settings(smallest: bool, start: str) -> dict[str, dict]:
    """The arguments of each stage, which its results belong to."""
    sizes = SMALLEST if smallest else FULL
    run = {**sizes["train"], "start": "random" if smallest else start}
    batch = sizes["kernels"]["batch"]
    stages = {
        "throughput": {**sizes["throughput"], "compiled": False},
        "kernels": sizes["kernels"],
        "ranking": sizes["ranking"],
        "render": {"size": run["size"]},
        "train": run,
        "agreement": run,
        "explained": {**sizes["explained"], **run},
        "compile": {**sizes["throughput"], "batches": [batch], "compiled": True},
    }
    for name in TABLES:
        stages[name] = {"name": name, **sizes["tables"]}
    return stages


def run_stage(stage: str, where: Where, chosen: dict) -> str:
    """Runs one stage; returns its traceback ("": none).

    Its .json is written last: where it is there, the other files are whole.
    """
    start = time.perf_counter()
    torch.cuda.empty_cache()  # what the stage before left
    try:
        # The rows that are recorded here stay apart from the committed ones.
        with mock.patch.object(paths, "RECORDED", where.folder / where.stem("recorded")):
            found = WORK[stage](where, **chosen)
        seconds = round(time.perf_counter() - start, 1)
        with atomic_write(where.folder / f"{where.stem(stage)}.csv") as temporary:
            found.frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        result = {
            "settings": chosen,
            "environment": environment(torch.device(where.device)) | {"seconds": seconds},
            "pictures": found.pictures,
            "text": found.text,
        }
        write_json(where.folder / f"{where.stem(stage)}.json", result)
    except Exception:  # as text, since not every error can leave its process
        return traceback.format_exc()
    return ""


def done(stage: str, where: Where, chosen: dict) -> dict | None:
    """What a stage wrote, if it is there and of these settings."""
    path = where.folder / f"{where.stem(stage)}.json"
    result = read_json(path) if path.exists() else {}
    return result if result.get("settings") == chosen else None


def report(where: Where, stages: dict[str, dict], failed: dict[str, str], trial: str) -> Path:
    """Joins what every stage wrote; says which failed and which are not there."""
    states = []
    parts = []
    for stage, chosen in stages.items():
        result = done(stage, where, chosen)
        if stage in failed:
            state = f"failed: {failed[stage]}"
        else:
            state = "done" if result else "not run"
        about = result["environment"] if result else {}
        row = {"stage": stage, "state": state}
        states.append(row | {key: about.get(key, "") for key in ("seconds", "commit")})
        if result:
            parts += [f"## {stage}", WORK[stage].__doc__.splitlines()[0], result["text"].strip()]
            parts += [f"![{name}]({where.stem(name)}.png)" for name in result["pictures"]]
    head = [f"# Benchmarks on {where.name}", f"{trial}PyTorch {torch.__version__}."]
    head.append(markdown(pd.DataFrame(states)))
    path = where.folder / f"{where.stem('report')}.md"
    write_text(path, "\n\n".join([*head, *parts]) + "\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WORK, metavar="STAGE", help=", ".join(WORK))
    parser.add_argument("--device", default=str(default_device()))
    smallest_help = "everything at its smallest size, to try the stages"
    parser.add_argument("--smallest", action="store_true", help=smallest_help)
    starts = {"choices": ["imagenet", "random"], "default": "imagenet"}
    parser.add_argument("--start", help="of the full-size training", **starts)
    minutes_help = "after these no stage is begun (default: 60)"
    parser.add_argument("--minutes", type=float, default=60, help=minutes_help)
    parser.add_argument("--data-root", type=Path, default=paths.DATA)
    parser.add_argument("--runs-root", type=Path, default=paths.RUNS)
    given = parser.parse_args(arguments)

    name = device_name(torch.device(given.device))
    if given.smallest:
        folder = runs_root = given.runs_root / "gpu-smallest"
        trial = "Everything is at its smallest size, to try the stages: the numbers mean nothing. "
    else:
        folder = RESULTS
        runs_root = given.runs_root
        trial = ""
    where = Where(given.device, name, folder, given.data_root, runs_root)
    stages = settings(given.smallest, given.start)
    failed: dict[str, str] = {}
    late = []
    until = time.monotonic() + 60 * given.minutes
    with ExitStack() as stack:
        executor = None
        for stage in given.only or stages:
            if done(stage, where, stages[stage]):
                print(f"{stage}: is there", flush=True)
            elif time.monotonic() > until:
                late.append(stage)
            else:
                print(f"{stage} ...", flush=True)
                executor = executor or stack.enter_context(pool(1, torch.get_num_threads()))
                try:
                    error = executor.submit(run_stage, stage, where, stages[stage]).result()
                except BrokenProcessPool:
                    error = "its process was killed, often for want of memory"
                if error:
                    failed[stage] = error.strip().splitlines()[-1]
                    print(error, file=sys.stderr)
                    # What went wrong on the card stays with this process: the next has a new one.
                    executor.shutdown()
                    executor = None
            path = report(where, stages, failed, trial)
    if failed:
        print(f"gpu: failed: {', '.join(failed)}", file=sys.stderr)
    if late:
        print(f"gpu: not begun, the time is up: {', '.join(late)}", file=sys.stderr)
    print(f"report: {path}")
    return 1 if failed or late else 0


if __name__ == "__main__":
    sys.exit(main())
