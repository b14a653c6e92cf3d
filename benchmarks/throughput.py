"""Images a second in training and in embedding, of one configuration on one device.

    python benchmarks/throughput.py             # the paper's model on the GPU, bf16, batch 128
    python benchmarks/throughput.py --profile smoke --device cpu     # tries the script

Writes results/throughput_<device>.csv. Images are random and already on the device, so what is
measured is the model, the losses and the optimiser; feeding has a benchmark of its own. The floor
is the multiply-adds, three times those of a forward pass in training, at the rate that a large
matrix product reaches on the same device in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import torch
from measure import slug, spread_of, write_table

from fusionreid import build_model
from fusionreid.config import PAPER, PROFILES, ModelConfig, Profile
from fusionreid.devices import autocast, device_name
from fusionreid.models import cost
from fusionreid.training.losses import PaperObjective
from fusionreid.training.train import make_optimizer


def macs(config: ModelConfig) -> int:
    """Multiply-adds of one image, those inside attention with them."""
    costs = cost.measure(config)
    return costs.macs + costs.attention_macs


def timed(work, device: torch.device, repetitions: int, warmup: int = 3) -> list[float]:
    seconds = []
    for repetition in range(warmup + repetitions):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if repetition >= warmup:
            seconds.append(time.perf_counter() - start)
    return seconds


def product_rate(device: torch.device, precision: str) -> float:
    """Multiply-adds a second of a large matrix product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    with autocast(device, precision):
        seconds = timed(lambda: a @ b, device, 5)
    return side**3 / spread_of(seconds)[0]


def works(
    scale: Profile, device: torch.device, precision: str, batch: int, compiled: bool = False
) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """A training step, then an embedding, of one batch.

    Yields the name, its cost in forward passes, and the work itself, which is to be called before
    the next is asked for, as the model changes its mode.
    """
    config = scale.scale(PAPER)
    model = build_model(config, 751, 6).to(device, memory_format=torch.channels_last)
    called = torch.compile(model) if compiled else model
    optimizer = make_optimizer(model, scale.train)
    objective = PaperObjective(751, scale.train)
    images = torch.randn(batch, 3, *config.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    cameras = torch.randint(0, 6, (batch,), device=device)
    identities = torch.arange(batch, device=device) // scale.train.images

    def step() -> None:
        with autocast(device, precision):
            output = called(images, cameras)
        loss = sum(objective(output, identities).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def embed() -> None:
        with autocast(device, precision):
            called(images, cameras)

    model.train()
    yield "training", 3, step
    model.eval()
    yield "embedding", 1, embed


def measure(
    scale: Profile,
    device: torch.device,
    precision: str,
    batch: int,
    repetitions: int,
    compiled: bool,
    rate: float,
) -> list[dict]:
    """A row for training and one for embedding; `rate` is that of `product_rate`."""
    rows = []
    for name, passes, work in works(scale, device, precision, batch, compiled):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds, spread = spread_of(timed(work, device, repetitions))
        floor = rate / (passes * macs(scale.scale(PAPER)))
        peak = ""
        if device.type == "cuda":
            peak = round(torch.cuda.max_memory_allocated(device) / 1e9, 2)
        rows.append(
            {
                "work": name,
                "images_per_second": round(batch / seconds, 1),
                "milliseconds": round(1e3 * seconds, 2),
                "spread_ms": round(1e3 * spread, 2),
                "floor_images_per_second": round(floor, 1),
                "batch": batch,
                "precision": precision,
                "compile": compiled,
                "profile": scale.name,
                "peak_gb": peak,
                "torch": torch.__version__,
                "device": device_name(device),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="paper", choices=list(PROFILES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="bf16", choices=["float32", "bf16", "fp16"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    device = torch.device(given.device)
    scale = PROFILES[given.profile]
    rate = product_rate(device, given.precision)
    rows = measure(
        scale, device, given.precision, given.batch, given.repetitions, given.compile, rate
    )
    write_table(f"throughput_{slug(rows[0]['device'])}", rows)


if __name__ == "__main__":
    main()
