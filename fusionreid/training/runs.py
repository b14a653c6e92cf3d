"""What a run is, and its folder: configuration, environment, metrics, checkpoint and result.

`runs/<fingerprint>/` holds `config.json`, `environment.json`, `metrics.jsonl` (a line for each step, epoch and
evaluation), `checkpoint.safetensors`, `weights.txt` if it started from files and, once finished, `result.json`,
`average_precision.npz` and `first_match.npz`: for each feature the average precision of each query, and the rank of its
first match; NaN for a query without a match.
"""

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import paths
from ..config import PAPER, PAPER_TRAINING, DataConfig, ModelConfig, Profile, TrainConfig
from ..config import profile as find_profile
from ..data.datasets import Dataset, with_version
from ..files import atomic_write, digest, locked, read_json, read_lines, write_json, write_text
from ..models import checkpoints
from ..models.backbones import IMAGENET
from ..models.fusionreid import FusionReID
from ..options import expect_fields


@dataclass(frozen=True)
class Start:
    """What a branch starts from."""

    source: str = "random"  # or "imagenet" (fetched by timm), or the path of a file of weights
    version: str = ""  # timm's tag, or the file's digest

    def __str__(self) -> str:
        """A file by its name and digest, wherever it lies."""
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

    def __post_init__(self):
        expect_fields(self, seed=(0,))

    def describe(self) -> dict:
        """As plain data."""
        return asdict(self) | {
            "cnn_start": str(self.cnn_start),
            "transformer_start": str(self.transformer_start),
        }

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the run's folder."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_run(
    profile: str | Profile,
    config: ModelConfig = PAPER,
    *,
    seed: int = 0,
    data: DataConfig | None = None,
    weights: Mapping[str, str] | None = None,
    data_root: str | Path | None = None,
    runs_root: str | Path | None = None,
) -> RunConfig:
    """The run of a paper-scale configuration in a profile; the version of the data is looked up (`find_version`).

    `weights` are files by the name of the backbone, {"resnet50": "r50.pth"}. The default is the profile's start, but
    for "imagenet" the file `data/weights/<backbone>.pth` (.safetensors, .pt), if there is one; for "pretrained",
    backbones other than the paper's start at random.
    """
    profile = find_profile(profile)
    scaled = profile.scale(config)
    starts = {
        f"{branch}_start": find_start(
            (weights or {}).get(name) or _default_start(profile, name), name
        )
        for branch, name in (("cnn", config.cnn), ("transformer", config.transformer))
        if name
    }
    data = find_version(data or profile.data, data_root, runs_root)
    return RunConfig(scaled, data, profile.train, seed, **starts)


def find_version(
    data: DataConfig, data_root: str | Path | None = None, runs_root: str | Path | None = None
) -> DataConfig:
    """`data` with the version of the files under `data_root`; of the finished runs of this set where there are none.

    If these are of several versions, a warning names them, and none is taken.
    """
    found = with_version(data, data_root or paths.DATA)
    if found.version:
        return found
    versions = set()
    for result in Path(runs_root or paths.RUNS).glob("*/result.json"):
        with suppress(
            OSError, ValueError, KeyError, TypeError
        ):  # a damaged folder is named when it is read
            about = DataConfig(**read_json(result.with_name("config.json"))["data"])
            versions |= {about.version} if replace(about, version="") == data else set()
    if len(versions) > 1:
        known = ", ".join(map(repr, sorted(versions)))
        warnings.warn(
            f"{data.name} is not there, and runs are of {known}: choose DataConfig.version",
            stacklevel=3,
        )
        return data
    return replace(data, version=min(versions, default=""))


def _default_start(profile: Profile, backbone: str) -> str:
    if profile.start == "pretrained":
        small = profile.backbones.get(backbone)
        return str(paths.WEIGHTS / f"{small}.safetensors") if small else "random"
    if profile.start != "imagenet":
        return profile.start
    files = (
        paths.DATA / "weights" / f"{backbone}{suffix}" for suffix in (".safetensors", ".pth", ".pt")
    )
    return next((str(file) for file in files if file.is_file()), profile.start)


def find_start(source: str, backbone: str | None) -> Start:
    """A start with the version of what it names: timm's tag, or the file's digest."""
    if source in ("random", "imagenet"):
        return Start(source, IMAGENET.get(backbone, "") if source == "imagenet" else "")
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"weights {source!r}: expected 'random', 'imagenet' or a file, found no such file"
        )
    status = os.stat(source)
    return Start(source, digest(str(source), status.st_size, status.st_mtime_ns))


def read_result(fingerprint: str, runs_root: str | Path | None = None) -> dict | None:
    """The result of one run, None if it has not finished; a ValueError names a file that is damaged or another's."""
    path = Path(runs_root or paths.RUNS) / fingerprint / "result.json"
    if not path.exists():
        return None
    try:
        result = read_json(path)
        if result["fingerprint"] != fingerprint:
            raise ValueError(f"that of run {result['fingerprint']}")
        _ = [result[key] for key in ("seed", "commit", "device", "seconds")]
        _ = [result["data"][key] for key in ("name", "version")]
        for feature in ("all", *result["features"]):
            for metric, value in result["features"][feature].items():
                if not 0 <= value <= 1:
                    raise ValueError(f"{feature}/{metric} is {value!r}, not a fraction of 1")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"found something else ({type(error).__name__}: {error})"
        remedy = "delete the file to have the run evaluated again"
        raise ValueError(
            f"{path}: expected the result of run {fingerprint}, {found}; {remedy}"
        ) from error
    return result


class RunFolder:
    """The folder of one configuration, whether it is finished or not."""

    def __init__(self, config: RunConfig, runs_root: str | Path):
        self.config, self.path = config, Path(runs_root) / config.fingerprint
        self.checkpoint, self.metrics_file = (
            self.path / "checkpoint.safetensors",
            self.path / "metrics.jsonl",
        )
        self.lock = self.path / f"{config.fingerprint}.lock"

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def result(self) -> dict | None:
        """What was measured at the last epoch; see `read_result`."""
        return read_result(self.path.name, self.path.parent)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each line of `metrics.jsonl`; `kind` is "step", "epoch" or "evaluation"."""
        return pd.DataFrame(read_lines(self.metrics_file))

    def model(self, device: str | torch.device = "cpu") -> FusionReID:
        """The model as trained, in evaluation mode."""
        return checkpoints.load(self.checkpoint, device)

    @contextmanager
    def held(self, resume: bool = True) -> Iterator[None]:
        """Other commands that want to train this run wait. On an error, it is said what is kept.

        Removes the temporary files of processes that were killed and, unless `resume`, the checkpoint.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.lock):
            for leftover in (
                *self.path.glob(".*.*.*"),
                *self.path.glob(".tmp*"),
            ):  # ours, and those of safetensors
                leftover.unlink(missing_ok=True)
            if not resume and not self.finished:
                self.checkpoint.unlink(missing_ok=True)
            try:
                yield
            except BaseException:
                if self.checkpoint.exists():
                    kept = f"its last finished epoch is kept in {self.path}; the same command continues from there"
                    print(f"Run {self.config.fingerprint} stopped: {kept}.", file=sys.stderr)
                raise
        with suppress(OSError):  # on Windows, where another process waits for it
            self.lock.unlink()

    def restore(self, model: FusionReID, optimizer, scaler) -> tuple[int, float, list[dict]]:
        """Loads the last finished epoch; returns its number (0: none), and the seconds and metrics until then."""
        path, epochs = self.checkpoint, self.config.train.epochs
        if not path.exists():
            return 0, 0.0, []
        try:
            saved = checkpoints.read_state(path)
            epoch, seconds = int(saved["epoch"]), float(saved["seconds"])
            checkpoints.restore(path, model, optimizer if epoch < epochs else None)
            scaler.load_state_dict(saved["scaler"])
            path = self.metrics_file
            lines = [line for line in read_lines(path) if line["epoch"] <= epoch]
            again = ("evaluation", epochs)  # done again, as the run has no result
            return (
                epoch,
                seconds,
                [line for line in lines if (line["kind"], line["epoch"]) != again],
            )
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{path}: cannot continue ({why}); train anew: --restart, or resume=False"
            ) from error

    def describe(self, environment: dict, weights: str) -> None:
        """Writes what the run is, and prints which weights were loaded from files."""
        write_json(
            self.path / "config.json",
            {"fingerprint": self.config.fingerprint, **self.config.describe()},
        )
        write_json(self.path / "environment.json", environment)
        if weights:
            print(weights)
            write_text(self.path / "weights.txt", f"{weights}\n")

    def write_result(
        self, rankings: Mapping, dataset: Dataset, seconds: float, environment: dict
    ) -> None:
        """Writes the scores of each query and `result.json` from the last epoch's `Ranking` of each feature."""
        for name in ("average_precision", "first_match"):
            scores = {feature: np.full(len(dataset.query), np.nan) for feature in rankings}
            for feature, ranking in rankings.items():
                scores[feature][ranking.queries] = getattr(ranking, name)
            with atomic_write(self.path / f"{name}.npz") as temporary:
                np.savez_compressed(temporary, **scores)
        result = {
            "fingerprint": self.config.fingerprint, "data": {"name": dataset.name, "version": dataset.version},
            "seed": self.config.seed, "epochs": self.config.train.epochs,
            **{key: environment[key] for key in ("commit", "device", "processes")}, "seconds": round(seconds, 2),
            "features": {feature: ranking.summary() for feature, ranking in rankings.items()},
        }  # fmt: skip
        write_json(self.path / "result.json", result)
