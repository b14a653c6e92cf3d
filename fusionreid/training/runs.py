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
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import paths
from ..config import PAPER, PAPER_TRAINING, DataConfig, ModelConfig, Profile, TrainConfig
from ..data.datasets import with_version
from ..devices import device_name
from ..files import atomic_write, digest, read_json, read_lines, write_json, write_text
from ..models.backbones import IMAGENET
from ..models.fusionreid import FusionReID
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


METRICS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP", "mAP_trapezoid")


def read_result(fingerprint: str, runs_root: str | Path) -> dict | None:
    """The result of one run, None if it has not finished.

    Returns:
        result.json: `fingerprint`, `data` (`name`, `version`), `seed`, `epochs`, `commit`, `device`, `processes`,
        `seconds` and `features`, {feature: {metric: fraction of 1}}.

    Raises:
        ValueError: the file is damaged or is another run's; the message names it.
    """
    path = Path(runs_root) / fingerprint / "result.json"
    if not path.exists():
        return None
    result = read_json(path)
    problem = _problem(result, fingerprint)
    if problem:
        raise ValueError(f"{path}: {problem}; delete this file to have the run evaluated again")
    return result


def _problem(result, fingerprint: str) -> str:
    """What is wrong with a result, "" if nothing is."""
    if not isinstance(result, dict) or result.get("fingerprint") != fingerprint:
        found = result.get("fingerprint") if isinstance(result, dict) else type(result).__name__
        return f"expected the result of run {fingerprint}, found {found!r}"
    missing = [
        key for key in ("data", "seed", "epochs", "commit", "device", "seconds", "features") if key not in result
    ]
    if missing:
        return f"expected the keys {', '.join(missing)}, found none"
    features = result["features"]
    if not isinstance(features, dict) or not isinstance(features.get("all"), dict):
        return f"expected numbers of the feature 'all' in `features`, found {features!r}"
    for feature, numbers in features.items():
        for metric in METRICS:
            value = numbers.get(metric) if isinstance(numbers, dict) else None
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                return f"expected {feature}/{metric} as a fraction of 1, found {value!r}"
    return ""


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
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def finished(self) -> bool:
        return (self.path / "result.json").is_file()

    @property
    def result(self) -> dict | None:
        """What was measured at the last epoch; see `read_result`."""
        return read_result(self.config.fingerprint, self.runs_root)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each line of `metrics.jsonl`; `kind` is "step", "epoch" or "evaluation"."""
        return pd.DataFrame(read_lines(self.metrics_file))

    def model(self, device: str | torch.device = "cpu") -> FusionReID:
        """The model as trained, in evaluation mode."""
        return checkpoint.load(self.checkpoint, device)

    def write_result(self, **facts) -> None:
        """Writes `result.json` from the last epoch's evaluation in `metrics.jsonl`."""
        rows = [row for row in read_lines(self.metrics_file) if row["kind"] == "evaluation"]
        scores = {
            row["feature"]: {metric: row[metric] for metric in METRICS}
            for row in rows
            if row["epoch"] == self.config.train.epochs
        }
        run = {"fingerprint": self.config.fingerprint, "seed": self.config.seed, "epochs": self.config.train.epochs}
        write_json(self.path / "result.json", {**run, **facts, "features": scores})

    def remove_leftovers(self) -> None:
        """Removes the temporary files of writers that were killed; call it under the run's lock."""
        for leftover in self.path.glob(".*"):
            leftover.unlink(missing_ok=True)


def write_lines(path: Path, rows: list[dict]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_lines(path: Path, rows: list[dict]) -> None:
    with open(path, "a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        os.fsync(file.fileno())


def save_precision(path: Path, rankings: Mapping) -> None:
    """Writes the average precision of each query, by feature; a query without a match has NaN."""
    arrays = {}
    for name, ranking in rankings.items():
        arrays[name] = np.full(ranking.num_queries, np.nan)
        arrays[name][ranking.queries] = ranking.average_precision
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def git_commit() -> str:
    """The commit that the code is at, with "+" if files differ from it; "" outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "fusionreid")
        return git("rev-parse", "--short=10", "HEAD") + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return ""


def environment(device: torch.device, processes: int = 1) -> dict:
    """What the numbers depend on besides the configuration."""
    packages = ("torch", "torchvision", "timm", "numpy")
    return {
        "commit": git_commit(),
        "device": device_name(device),
        "processes": processes,
        "python": platform.python_version(),
        "system": platform.system(),
        **{package: version(package) for package in packages},
    }
