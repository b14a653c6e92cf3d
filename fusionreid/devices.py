"""What numbers depend on besides the configuration: the device, the precision, the versions."""

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch

from .options import one_of
from .paths import PACKAGE

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def default_device() -> torch.device:
    """The GPU, if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """Mixed precision: "float32" (off), "bf16" or "fp16"."""
    one_of("precision", precision, DTYPES)
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=DTYPES[precision], enabled=precision != "float32")


@contextmanager
def one_thread(device: torch.device | str) -> Iterator[int]:
    """One thread on a CPU, whose numbers depend on their count; yields how many there were."""
    threads = torch.get_num_threads()
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's architecture and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"


def git_commit() -> str:
    """The commit that the code is at, with "+" if files differ from it; "" outside a checkout."""
    try:
        _git("ls-files", "--error-unmatch", "devices.py")  # in another repository it is not tracked
        commit = _git("rev-parse", "--short=10", "HEAD")
        changes = _git("status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{commit}+" if changes else commit


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(device: torch.device, processes: int = 1) -> dict:
    """What a run writes to `environment.json`."""
    return {
        "commit": git_commit(),
        "device": device_name(device),
        "processes": processes,
        "python": platform.python_version(),
        "system": platform.system(),
        **{name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }
