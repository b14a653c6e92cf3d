"""One run's folder: its configuration, environment, metrics, checkpoint and result; all written aside and renamed.

`runs/<fingerprint>/` holds `config.json`, `environment.json`, `metrics.jsonl` (a line a step, epoch or evaluation),
`checkpoint.safetensors`, `weights.txt` if it started from files and, once finished, `result.json`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from . import checkpoint
from .config import RunConfig
from .files import atomic_write, read_json, read_lines
from .model import FusionReID
from .paths import ROOT


@dataclass(frozen=True)
class RunFolder:
    """The folder of one configuration, whether it is finished or not."""

    config: RunConfig
    runs_root: Path

    @property
    def path(self) -> Path:
        return Path(self.runs_root) / self.config.fingerprint

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").is_file()

    @cached_property
    def result(self) -> dict:
        """What `train` measured: see `train.train`."""
        return read_json(self.path / "result.json")

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each line of `metrics.jsonl`; `kind` is "step", "epoch" or "evaluation"."""
        return pd.DataFrame(read_lines(self.path / "metrics.jsonl"))

    def model(self, device: str | torch.device = "cpu") -> FusionReID:
        """The model as trained, in evaluation mode."""
        return checkpoint.load(self.checkpoint, device)


def write_lines(path: Path, rows: list[dict]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))


def append_lines(path: Path, rows: list[dict]) -> None:
    with open(path, "a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def git_commit() -> str:
    """The commit that the code is at, with "+" if files differ from it; "" outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "fusionreid") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's architecture and the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {platform.machine()}, {torch.get_num_threads()} threads"


def environment(device: torch.device, processes: int = 1, data_version: str = "") -> dict:
    """What the numbers depend on besides the configuration."""
    import numpy
    import timm
    import torchvision

    return {
        "commit": git_commit(),
        "device": device_name(device),
        "data_version": data_version,
        "processes": processes,
        "python": platform.python_version(),
        "system": platform.system(),
        **{module.__name__: module.__version__ for module in (torch, torchvision, timm, numpy)},
    }


def check_version(folder: RunFolder, version: str) -> None:
    """A run of one version of MSMT17 is not continued on the other, nor shown for it.

    Args:
        version: of the data that are there; "" if there are none, or they tell no version.

    Raises:
        ValueError: naming the run's folder and both versions.
    """
    path = folder.path / "environment.json"
    begun = read_json(path).get("data_version", "") if path.is_file() else ""
    if begun and version and begun != version:
        raise ValueError(
            f"{folder.path}: a run of {folder.config.data.name} {begun}, while the data there are now are {version}; "
            "keep the runs of each version in a folder of their own (--runs-root, FUSIONREID_RUNS), or delete the run"
        )


def describe(config: RunConfig) -> dict:
    """`config.json`: the whole configuration and its fingerprint."""
    return {"fingerprint": config.fingerprint, **config.describe()}
