"""Where folding MFU's projections pays: the cross-attention of one query as written and folded, at the paper's sizes.

    python benchmarks/folded.py [--device cuda]      # about a minute on one core

Writes results/folded.csv. D = 768, 12 heads, 128 and 210 local tokens (the CNN's and the Transformer's map); the ratio
of multiply-adds is the floor of what folding can gain.
"""

from __future__ import annotations

import argparse

import torch
from measure import spread_of, write_table
from throughput import timed

from fusionreid.models.fusion import CrossAttention
from fusionreid.training.runs import device_name

DIM, HEADS = 768, 12


def macs(tokens: int) -> tuple[int, int]:
    """Multiply-adds for one image as written and folded (see `CrossAttention`), the output projection among them."""
    written = (2 + 2 * tokens) * DIM**2 + 2 * tokens * DIM
    return written, 4 * DIM**2 + 2 * tokens * DIM * HEADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repetitions", type=int, default=9)
    given = parser.parse_args()
    device, rows = torch.device(given.device), []
    attention = CrossAttention(DIM, HEADS).to(device).eval()
    for tokens in (128, 210):
        for batch in (1, 8, 64):
            query, local = torch.randn(batch, DIM, device=device), torch.randn(batch, tokens, DIM, device=device)
            times = {}
            for name, on in (("written", False), ("folded", True)):
                attention.fold(on)
                with torch.inference_mode():
                    times[name], times[f"{name}_spread"] = spread_of(
                        timed(lambda q=query, x=local: attention(q, x), device, given.repetitions))  # fmt: skip
            written, folded = macs(tokens)
            rows.append({
                "tokens": tokens, "batch": batch,
                **{f"{name}_ms": round(1e3 * seconds, 3) for name, seconds in times.items()},
                "times_faster": round(times["written"] / times["folded"], 1), "macs_ratio": round(written / folded, 1),
                "torch": torch.__version__, "device": device_name(device),
            })  # fmt: skip
    write_table("folded", rows)


if __name__ == "__main__":
    main()
