"""Where models compute: the device, its name and its precision."""

from __future__ import annotations

import platform

import torch

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_device() -> torch.device:
    """The GPU, if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Mixed precision: "float32" (off), "bf16" or "fp16"."""
    return torch.autocast(torch.device(device).type, dtype=DTYPES[precision], enabled=precision != "float32")


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's architecture and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"
