"""What the benchmarks share: simulated people, a measured process, and a table on disk."""

from __future__ import annotations

import csv
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"
# Queries, gallery images, identities of the gallery, cameras.
SIZES = {
    "market1501": (3368, 15913, 751, 6),
    "dukemtmc": (2228, 17661, 1110, 8),
    "msmt17": (11659, 82161, 3060, 15),
}


def people(queries: int, gallery: int, identities: int, cameras: int, *, width=64, spread=1.2):
    """Simulated people: images scattered by `spread` around a centre for each identity.

    Returns [query, gallery] features, (N, width) L2-normalised float32, and
    [query_ids, gallery_ids, query_cameras, gallery_cameras].
    """
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((identities, width), dtype=np.float32)
    labels = [
        rng.integers(0, identities, queries),
        rng.integers(0, identities, gallery),
        rng.integers(0, cameras, queries),
        rng.integers(0, cameras, gallery),
    ]
    features = []
    for owners in labels[:2]:
        rows = rng.standard_normal((len(owners), width), dtype=np.float32)
        rows *= spread
        rows += centres[owners]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        features.append(rows)
    return features, labels


def in_this_process(
    prepare: Callable, work: Callable, repetitions: int, *, mapped: bool = False
) -> None:
    """Prints, as JSON, what `work(*prepare())` returned, its seconds and its peak memory.

    `peak_mb` is the highest memory of this process beyond what it held once the features were there
    and all modules imported. Where the features are `mapped` from a file, its pages, which the
    system takes back at will, are not counted: the memory is then looked at every few milliseconds.
    """
    import fusionreid.evaluation.ranking  # noqa: F401

    inputs = prepare()
    before = _memory_mb("RssAnon" if mapped else "VmRSS")
    seen = [before]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            seen.append(_memory_mb("RssAnon"))

    watcher = threading.Thread(target=watch)
    if mapped:
        watcher.start()
    seconds = []
    result = None
    for _ in range(repetitions):
        start = time.perf_counter()
        result = work(*inputs)
        seconds.append(time.perf_counter() - start)
    peak = _memory_mb("VmHWM")
    if mapped:
        stop.set()
        watcher.join()
        peak = max(seen)
    print(json.dumps({"seconds": seconds, "peak_mb": peak - before, "result": result}))


def in_a_process(script: str, **options) -> dict:
    """Runs `script` with these options, alone; returns what `in_this_process` printed there."""
    command = [sys.executable, script, *(f"--{name}={value}" for name, value in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def spread_of(seconds: list[float]) -> tuple[float, float]:
    """Median, and the largest minus the smallest."""
    return statistics.median(seconds), max(seconds) - min(seconds)


def write_table(name: str, rows: list[dict]) -> Path:
    """Writes rows to results/<name>.csv and prints them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    widths = {key: max(len(key), *(len(str(row.get(key, ""))) for row in rows)) for key in columns}
    for row in [{key: key for key in columns}, *rows]:
        print("  ".join(str(row.get(key, "")).ljust(widths[key]) for key in columns))
    return path


def markdown(frame) -> str:
    """A pandas frame, its index aside, as a table for a report; NaN is an empty cell."""
    rows = [list(frame), ["---"] * len(frame.columns)]
    for values in frame.astype(object).to_numpy():
        rows.append([_cell(value) for value in values])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _cell(value) -> str:
    if not isinstance(value, float):
        return str(value).replace("*", r"\*")
    if value != value:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def slug(name: str) -> str:
    """A device's name as a part of a file's name."""
    return re.sub("[^A-Za-z0-9]+", "-", name).strip("-").lower()


def machine() -> str:
    """The processor, and how many of its cores may be used."""
    model = _field("/proc/cpuinfo", "model name") or "unknown processor"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def _memory_mb(field: str) -> float:
    """Memory of this process, by Linux's /proc; NaN elsewhere."""
    kilobytes = _field("/proc/self/status", field).removesuffix(" kB")
    return int(kilobytes) / 1024 if kilobytes else float("nan")


def _field(path: str, name: str) -> str:
    """The first value of this name in one of Linux's files of "name: value"; "" elsewhere."""
    lines = Path(path).read_text().splitlines() if Path(path).exists() else []
    for line in lines:
        if line.startswith(name):
            return line.partition(":")[2].strip()
    return ""
