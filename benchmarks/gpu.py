"""Everything that wants a GPU, on one card: speed, memory, precisions, ranking, full-size synthetic people, tables.

    python benchmarks/gpu.py                                  # every stage, on the card, for about an hour
    python benchmarks/gpu.py --only throughput kernels        # some stages
    python benchmarks/gpu.py --smallest --device cpu          # tries every stage at its smallest size, without a card

Each stage writes `gpu_<stage>_<device>` files (.json, .csv, pictures) to results/; `gpu_report_<device>.md` joins them.
What is there, with the same settings, is not made again: the same command goes on where it was cut off. After
`--minutes` no further stage is begun. The exit status is 0 once every stage that was asked for is there. `--smallest`
writes to runs/gpu-smallest/: its numbers mean nothing. Without a network, put ImageNet's weights into data/weights/,
or give `--start random` (by AdamW). What the stages measure is in gpu_stages.py.
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

TABLES = (
    "table2",
    "table3",
    "table4",
    "table5",
    "differences",
    "figure5",
    "figure6",
    "table6",
    "table1",
)
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


def settings(smallest: bool, start: str) -> dict[str, dict]:
    """The arguments of each stage, which its results belong to."""
    if smallest:
        speed = {"profile": "smoke", "batches": [8], "precisions": ["bf16"], "repetitions": 1}
        run = {
            "profile": "smoke",
            "size": "smoke",
            "start": "random",
            "precision": "bf16",
            "epochs": 2,
        }
        rows = {"profile": "smoke", "seeds": [0, 1], "data_seeds": [0], "processes": 1}
        step, size, widths, most = {"batch": 8, "precision": "bf16"}, (40, 160, 10, 4), [8], (2, 4)
    else:
        precisions = ["float32", "bf16", "fp16"]
        speed = {
            "profile": "paper",
            "batches": [32, 64, 128, 256],
            "precisions": precisions,
            "repetitions": 20,
        }
        run = {
            "profile": "paper",
            "size": "full",
            "start": start,
            "precision": "bf16",
            "epochs": 30,
        }
        rows = {"profile": "demo", "seeds": list(range(8)), "data_seeds": [0, 1], "processes": 8}
        step, size, widths, most = (
            {"batch": 128, "precision": "bf16"},
            SIZES["msmt17"],
            [64, 5888],
            (6, 160),
        )
    return {
        "throughput": speed | {"compiled": False},
        "kernels": {"profile": speed["profile"], **step},
        "ranking": {"size": list(size), "widths": widths, "repetitions": 3},
        "render": {"size": run["size"]},
        "train": run,
        "agreement": run,
        "explained": {"shown": most[0], "scored": most[1], **run},
        "compile": speed | {"batches": [step["batch"]], "compiled": True},
    } | {name: {"name": name, **rows} for name in TABLES}


def run_stage(stage: str, where: Where, chosen: dict) -> str:
    """One stage; returns its traceback ("": none). Its .json is written last, and says that the others are whole."""
    start = time.perf_counter()
    torch.cuda.empty_cache()  # what the stage before left
    try:
        with mock.patch.object(
            paths, "RECORDED", where.folder / where.stem("recorded")
        ):  # apart from the committed
            found = WORK[stage](where, **chosen)
        with atomic_write(where.folder / f"{where.stem(stage)}.csv") as temporary:
            found.frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
        about = environment(torch.device(where.device)) | {
            "seconds": round(time.perf_counter() - start, 1)
        }
        result = {
            "settings": chosen,
            "environment": about,
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
    found = read_json(path) if path.exists() else {}
    return found if found.get("settings") == chosen else None


def report(where: Where, every: dict[str, dict], failed: dict[str, str], trial: str) -> Path:
    """Joins what every stage wrote; says which failed and which are not there."""
    states, parts = [], []
    for stage, chosen in every.items():
        found = done(stage, where, chosen)
        state = f"failed: {failed[stage]}" if stage in failed else "done" if found else "not run"
        about = found["environment"] if found else {}
        states.append(
            {
                "stage": stage,
                "state": state,
                "seconds": about.get("seconds", ""),
                "commit": about.get("commit", ""),
            }
        )
        if found:
            pictures = [f"![{name}]({where.stem(name)}.png)" for name in found["pictures"]]
            parts += [
                f"## {stage}",
                WORK[stage].__doc__.splitlines()[0],
                found["text"].strip(),
                *pictures,
            ]
    path = where.folder / f"{where.stem('report')}.md"
    head = [
        f"# Benchmarks on {where.name}",
        f"{trial}PyTorch {torch.__version__}.",
        markdown(pd.DataFrame(states)),
    ]
    write_text(path, "\n\n".join([*head, *parts]) + "\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=WORK, metavar="STAGE", help=", ".join(WORK))
    parser.add_argument("--device", default=str(default_device()))
    parser.add_argument(
        "--smallest", action="store_true", help="everything at its smallest size, to try the stages"
    )
    parser.add_argument(
        "--start",
        choices=["imagenet", "random"],
        default="imagenet",
        help="of the full-size training",
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="after these no stage is begun (default: 60)"
    )
    parser.add_argument("--data-root", type=Path, default=paths.DATA)
    parser.add_argument("--runs-root", type=Path, default=paths.RUNS)
    given = parser.parse_args(arguments)
    device, own = torch.device(given.device), given.runs_root / "gpu-smallest"
    folder, runs_root = (own, own) if given.smallest else (RESULTS, given.runs_root)
    where = Where(given.device, device_name(device), folder, given.data_root, runs_root)
    every, failed, late = settings(given.smallest, given.start), {}, []
    trial = (
        "Everything is at its smallest size here, to try the stages: the numbers mean nothing. "
        * given.smallest
    )
    until = time.monotonic() + 60 * given.minutes
    with ExitStack() as stack:
        executor = None
        for stage in given.only or every:
            if done(stage, where, every[stage]):
                print(f"{stage}: is there", flush=True)
            elif time.monotonic() > until:
                late.append(stage)
            else:
                print(f"{stage} ...", flush=True)
                executor = executor or stack.enter_context(pool(1, torch.get_num_threads()))
                try:
                    error = executor.submit(run_stage, stage, where, every[stage]).result()
                except BrokenProcessPool:
                    error = "its process was killed, often for want of memory"
                if error:  # what went wrong on the card stays with this process: the next stage has a new one
                    executor.shutdown()
                    executor, failed[stage] = None, error.strip().splitlines()[-1]
                    print(error, file=sys.stderr)
            path = report(where, every, failed, trial)
    for words, stages in {"failed": failed, "not begun, the time is up": late}.items():
        if stages:
            print(f"gpu: {words}: {', '.join(stages)}", file=sys.stderr)
    print(f"report: {path}")
    return 1 if failed or late else 0


if __name__ == "__main__":
    sys.exit(main())
