"""What training on many GPUs and galleries of up to a billion images would need: derived, and checked where it can be.

    python benchmarks/scale.py        # a minute on two cores; nothing of it needs a GPU

Writes results/scale_training.csv, scale_grid.csv and scale_galleries.csv, which are derived, and scale_checks.csv:
whether a query over a gallery takes as long as reading it once from this machine's memory, and whether two and four
processes of a small network send the bytes that are derived, which Linux counts at their sockets. A GPU is assumed to
do RATE multiply-adds a second, and to exchange gradients by rings, in which a process sends 2 (n - 1) / n of the bytes
that are reduced and (n - 1) / n of those that are gathered; what synchronised batch norms exchange is under 1 MB and
left out.
What an index of vectors takes is as Faiss documents it (MIT; pip install faiss-cpu).
"""

from __future__ import annotations

import heapq
import os
import socket
import tempfile
import time
from pathlib import Path

import accelerate
import numpy as np
import torch
from measure import machine, spread_of, write_table
from throughput import macs

from fusionreid import build_model, parallel
from fusionreid.config import DATASETS, PAPER, PAPER_TRAINING, ModelConfig, profile
from fusionreid.data.datasets import PUBLISHED
from fusionreid.paper.experiments import variants
from fusionreid.training.train import make_optimizer, train_one_epoch

RATE = 60e12  # multiply-adds a second of a GPU in bf16: an assumption
# Bytes a second, one way, and of reading: typical ones.
NETWORKS = {
    "Ethernet of 100 Gb/s": 12.5e9,
    "InfiniBand of 400 Gb/s": 50e9,
    "NVLink of an H100": 450e9,
}
MEMORIES = {"NVMe disk": 3e9, "memory of a server": 200e9, "memory of an H100": 3.35e12}
BATCH = PAPER_TRAINING.identities * PAPER_TRAINING.images


def sent_bytes(
    config: ModelConfig, classes: int, cameras: int, batch: int, processes: int
) -> dict[str, float]:
    """What a process sends in a step of training, by what it is for."""
    with torch.device("meta"):
        model = build_model(config, classes, cameras)
    ring = (processes - 1) / processes
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    widths = sum(model.widths.values()) + classes * len(model.widths)
    return {
        "gradients": 2 * ring * 4 * trained,
        "features and logits": 3
        * ring
        * 4
        * batch
        * widths,  # gathered, and their gradients reduced
        # Wrapped models take the first process's running statistics before each step.
        "buffers": ring * sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()),
    }


def socket_bytes() -> int:
    """What this process has sent by TCP so far, without headers, as Linux counts it."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as each:
                status = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:  # no socket, or not of TCP
            continue
        total += int.from_bytes(status[200:208], "little")  # tcpi_bytes_sent of struct tcp_info
    return total


def _steps(config: ModelConfig, batch: int, processes: int, folder: Path) -> None:
    """In each process: four steps of training; writes the bytes that were sent in each."""
    accelerate.PartialState._reset_state()  # that of the process that forked
    torch.set_num_threads(1)
    state, device = parallel.start("cpu")
    torch.manual_seed(0)
    model, scaler = build_model(config, 4, 6), torch.amp.GradScaler("cpu", enabled=False)
    training, labels = profile("smoke").train, torch.arange(batch)
    share = [torch.randn(batch, 3, *config.image_size), labels // (batch // 4), labels % 6]
    share = [part.chunk(processes)[state.process_index] for part in share]
    optimizer, wrapped = (
        make_optimizer(model, training),
        parallel.wrap(model, state, device, compile=False),
    )
    sent = []
    for _ in range(4):
        state.wait_for_everyone()
        before = socket_bytes()
        train_one_epoch(wrapped, [share], optimizer, scaler, training, 1, processes)
        state.wait_for_everyone()
        sent.append(socket_bytes() - before)
    np.save(folder / f"{state.process_index}.npy", sent)


def sent_measured(config: ModelConfig, batch: int, processes: int) -> np.ndarray:
    """Bytes that a process of several on this machine, joined by gloo, sends in a step: their mean, of three steps."""
    with tempfile.TemporaryDirectory() as folder:
        accelerate.debug_launcher(_steps, (config, batch, processes, Path(folder)), processes)
        found = [np.load(Path(folder) / f"{index}.npy") for index in range(processes)]
    return np.mean(found, axis=0)[
        1:
    ]  # in its first step DistributedDataParallel also agrees on its buckets


def training() -> list[dict]:
    rows, work = [], 3 * macs(PAPER) * BATCH
    for processes in (1, 2, 4, 8, 16, 64):
        sent, seconds = sent_bytes(PAPER, 1041, 15, BATCH, processes), work / RATE / processes
        total = sum(sent.values())
        row = {
            "GPUs": processes, "images_a_GPU": BATCH // processes, "compute_ms": round(1e3 * seconds, 1),
            "gradients_sent_mb": round(sent["gradients"] / 1e6),
            "features_and_logits_sent_mb": round(sent["features and logits"] / 1e6, 1),
            "as_long_as_compute_at_gb_s": round(total / seconds / 1e9, 1),
        }  # fmt: skip
        for name, speed in NETWORKS.items():
            slowest, fastest = (
                seconds + total / speed,
                max(seconds, total / speed),
            )  # nothing overlaps; all of it does
            row[f"images_s, {name}"] = f"{BATCH / slowest:.0f} to {BATCH / fastest:.0f}"
        rows.append(row | {"is": "derived"})
    return rows


def makespan(hours: list[float], workers: int) -> float:
    """Hours until all is done, one run a worker, longest first."""
    free = [0.0] * workers
    for each in sorted(hours, reverse=True):
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def grid() -> list[dict]:
    """Every distinct model of the tables and figures, on one data set and on all three, with one seed."""
    tables = [f"table{number}" for number in range(1, 7)]
    configs = {
        variant.config for name in [*tables, "figure5", "figure6"] for variant in variants(name)
    }
    hours, rows = {}, []
    for name in DATASETS:
        if name in PUBLISHED.index:
            images = PUBLISHED.loc[name, "images"]
            passes = (
                3 * PAPER_TRAINING.epochs * images["train"] + images["query"] + images["gallery"]
            )
            hours[name] = [passes * macs(config) / RATE / 3600 for config in configs]
    for name, each in [*hours.items(), ("all three", sum(hours.values(), []))]:
        row = {
            "data": name,
            "runs": len(each),
            "GPU_hours": round(sum(each), 1),
            "longest_run_hours": round(max(each), 1),
        }
        row |= {
            f"hours_on_{workers}": round(makespan(each, workers), 1) for workers in (1, 2, 8, 64)
        }
        rows.append(row | {"is": "derived"})
    return rows


def galleries() -> list[dict]:
    """One query over all images, in float16: each number is read once. Many queries at once are bound by arithmetic."""
    with torch.device("meta"):
        width = sum(build_model(PAPER, 2, 1).widths.values())
    rows = []
    for exponent in (6, 7, 8, 9):
        images = 10**exponent
        read = 2 * width * images
        row = {
            "images": f"10^{exponent}",
            "numbers_an_image": width,
            "float16_gb": round(read / 1e9, 1),
        }
        row |= {
            f"seconds_a_query, {name}": float(f"{read / speed:.2g}")
            for name, speed in MEMORIES.items()
        }
        row |= {
            "H100s_that_hold_it": -(-read // 80_000_000_000),
            "seconds_a_query, 10,000 at once on one GPU": float(f"{images * width / RATE:.2g}"),
            # 64 bytes of code and 8 of number an image (IVF,PQ64); 256 numbers after PCA and 32 links (PCA256,HNSW32).
            "IVF_PQ64_gb": round(72 * images / 1e9, 1),
            "PCA256_HNSW32_gb": round((4 * 256 + 2 * 4 * 32) * images / 1e9, 1),
            "is": "derived",
        }
        rows.append(row)
    return rows


def sending() -> list[dict]:
    """The smoke profile's full model, four identities and six cameras; more images send more features, and no more."""
    config, few, many, rows = profile("smoke").scale(PAPER), 16, 80, []
    for processes in (2, 4):
        derived = [
            sum(sent_bytes(config, 4, 6, batch, processes).values()) for batch in (few, many)
        ]
        found = [sent_measured(config, batch, processes) for batch in (few, many)]
        for what, expected, sent in (
            (f"{few} images", derived[0], found[0]),
            (f"{many} images, more than of {few}", derived[1] - derived[0], found[1] - found[0]),
        ):
            row = {
                "what": f"MB that one of {processes} processes sends in a step of {what}; smoke profile, gloo",
                "derived": round(expected / 1e6, 3), "measured": round(np.median(sent) / 1e6, 3),
                "spread": round(np.ptp(sent) / 1e6, 3), "measured / derived": round(np.median(sent) / expected, 3),
                "machine": machine(),
            }  # fmt: skip
            rows.append(row)
    return rows


def checks() -> list[dict]:
    width, images = galleries()[0]["numbers_an_image"], 30_000
    gallery = np.random.default_rng(0).random((images, width), np.float32)
    query, reading, searching = gallery[0].copy(), [], []
    for _ in range(9):
        start = time.perf_counter()
        gallery.max()  # reads every number once
        middle = time.perf_counter()
        gallery @ query
        reading.append(middle - start)
        searching.append(time.perf_counter() - middle)
    (read, _), (search, spread) = spread_of(reading), spread_of(searching)
    row = {
        "what": f"ms of a query over {images:,} images of {width} float32, from this machine's memory",
        "derived": round(1e3 * read, 1), "measured": round(1e3 * search, 1), "spread": round(1e3 * spread, 1),
        "measured / derived": round(search / read, 2), "machine": machine(),
    }  # fmt: skip
    return [row]


def main() -> None:
    sent = sending()  # first, as processes are forked
    for name, rows in (("training", training), ("grid", grid), ("galleries", galleries)):
        write_table(f"scale_{name}", rows())
    write_table("scale_checks", checks() + sent)


if __name__ == "__main__":
    main()
