"""What a run is, and its folder: configuration, environment, metrics, checkpoint and result.

`runs/<fingerprint>/` holds `config.json`, `environment.json`, `metrics.jsonl` (a line a step, epoch or evaluation),
`checkpoint.safetensors`, `weights.txt` if it started from files and, once finished, `result.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from .. import paths
from ..config import PAPER, PAPER_TRAINING, DataConfig, ModelConfig, Profile, TrainConfig
from ..data.datasets import with_version
from ..files import atomic_write, digest, read_json, read_lines
from ..models.backbones import IMAGENET
from ..models.fusionreid import FusionReID
from ..paths import ROOT
from . import checkpoint


@dataclass(frozen=True)
class Start:
    """What a branch starts from.

    Attributes:
        source: "random", "imagenet" (fetched by timm), or the path of a file of weights.
        version: timm's tag, or the file's digest.
    """

    source: str = "random"
    version: str = ""

    def __str__(self) -> str:
        """A file by its name and digest, as it may lie elsewhere tomorrow."""
        return ":".join(filter(None, [Path(self.source).name, self.version]))


@dataclass(frozen=True)
class RunConfig:
    """All that the numbers of one run depend on, device and versions of packages aside; `make_run` makes one."""

    model: ModelConfig = PAPER
    data: DataConfig = DataConfig()
    train: TrainConfig = PAPER_TRAINING
    seed: int = 0
    cnn_start: Start = Start()
    transformer_start: Start = Start()

    def describe(self) -> dict:
        """As plain data."""
        return asdict(self) | {"cnn_start": str(self.cnn_start), "transformer_start": str(self.transformer_start)}

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the run's folder."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_run(
    profile: Profile,
    config: ModelConfig = PAPER,
    *,
    seed: int = 0,
    data: DataConfig | None = None,
    weights: Mapping[str, str] | None = None,
    data_root: str | Path | None = None,
) -> RunConfig:
    """The run of a paper-scale configuration in a profile.

    Args:
        data: default: the profile's. Its version is looked up where the data are.
        weights: what to start from, by the name of the backbone: {"resnet50": "r50.pth"}. By default the profile's
            start; where that is "imagenet", a file `data/weights/<backbone>.pth` (or .safetensors, .pt) goes before
            what timm would fetch.

    Raises:
        FileNotFoundError: a file of weights that is not there.
    """
    scaled = profile.scale(config)
    starts = {
        f"{branch}_start": find_start((weights or {}).get(name) or _default_start(profile, name), name)
        for branch, name in (("cnn", config.cnn), ("transformer", config.transformer))
        if name
    }
    data = with_version(data or profile.data, data_root or paths.DATA)
    return RunConfig(scaled, data, profile.train, seed, **starts)


def _default_start(profile: Profile, backbone: str) -> str:
    if profile.start != "imagenet":
        return profile.start
    files = (paths.DATA / "weights" / f"{backbone}{suffix}" for suffix in (".safetensors", ".pth", ".pt"))
    return next((str(file) for file in files if file.is_file()), profile.start)


def find_start(source: str, backbone: str | None) -> Start:
    """A start with the version of what it names: timm's tag, or the file's digest."""
    if source in ("random", "imagenet"):
        return Start(source, IMAGENET.get(backbone, "") if source == "imagenet" else "")
    if not Path(source).is_file():
        raise FileNotFoundError(f"weights {source!r}: expected 'random', 'imagenet' or a file, found no such file")
    status = os.stat(source)
    return Start(source, digest(str(source), status.st_size, status.st_mtime_ns))


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


def read_result(fingerprint: str, runs_root: str | Path | None = None) -> dict | None:
    """The result of one run, None if it has not finished.

    Returns:
        result.json: `fingerprint`, `data` (`name`, `version`), `seed`, `commit`, `device`, `seconds` and `features`,
        {feature: {metric: fraction of 1}}.

    Raises:
        ValueError: the file is damaged or is another run's; the message names it.
    """
    path = Path(runs_root or paths.RUNS) / fingerprint / "result.json"
    if not path.exists():
        return None
    remedy = f"delete {path} to have it measured again"
    try:
        result = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from error
    if not isinstance(result, dict) or result.get("fingerprint") != fingerprint:
        found = result.get("fingerprint") if isinstance(result, dict) else type(result).__name__
        raise ValueError(f"{path}: expected the result of run {fingerprint}, found {found!r}; {remedy}")
    missing = [key for key in ("data", "seed", "features") if key not in result]
    if missing:
        raise ValueError(f"{path}: expected the keys data, seed and features, missing {missing}; {remedy}")
    features = result["features"]
    if not isinstance(features, dict) or "all" not in features:
        raise ValueError(f"{path}: expected the feature 'all' in `features`, found {features!r}; {remedy}")
    for feature, metrics in features.items():
        for metric, value in metrics.items():
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{path}: expected {feature}/{metric} as a fraction of 1, found {value!r}; {remedy}")
    return result


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


def describe(config: RunConfig) -> dict:
    """`config.json`: the whole configuration and its fingerprint."""
    return {"fingerprint": config.fingerprint, **config.describe()}
