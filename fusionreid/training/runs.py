"""What a run is, and its folder: configuration, environment, metrics, checkpoint and result.

`runs/<fingerprint>/` holds
- `config.json` and `environment.json`;
- `metrics.jsonl`, with a line for each step, epoch and evaluation, and at an evaluation one for
  each attention head;
- `checkpoint.safetensors`, the last saved epoch;
- `weights.txt`, if the run started from files: what became of each tensor;
- `without_cameras.json`, once it was asked for: the scores without the camera embedding;
- once finished, `result.json`, `average_precision.npz` and `first_match.npz`: for each feature the
  average precision of each query, and the rank of its first match (NaN for a query without one).
"""

import hashlib
import json
import os
import sys
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
from ..data.datasets import Dataset, find_version
from ..files import atomic_write, digest, locked, read_json, read_lines, write_json, write_text
from ..models import checkpoints
from ..models.backbones import IMAGENET
from ..models.fusionreid import FusionReID
from ..options import expect_fields, one_of


@dataclass(frozen=True)
class Start:
    """What a branch starts from: random weights, ImageNet's, or those of a file.

    With `whole` the file is a trained model of the run's own configuration, and all of it is taken,
    for both branches and their fusion (`trained.fine_tuned`).
    """

    source: str = "random"  # or "imagenet" (fetched by timm), or the path of a file of weights
    version: str = ""  # timm's tag, or the file's digest; "" is not looked up yet
    whole: bool = False

    def with_version(self, backbone: str | None) -> "Start":
        """The start with its version looked up.

        ImageNet's weights are those of the file `data/weights/<backbone>.safetensors` (or .pth,
        .pt), if there is one. Raises FileNotFoundError for a file that is not there.
        """
        if self.version or self.source == "random":
            return self
        if self.source == "imagenet":
            for suffix in (".safetensors", ".pth", ".pt"):
                file = paths.DATA / "weights" / f"{backbone}{suffix}"
                if file.is_file():
                    return Start(str(file)).with_version(backbone)
            return Start("imagenet", IMAGENET.get(backbone, ""))
        if not Path(self.source).is_file():
            raise FileNotFoundError(
                f"weights {self.source!r}: expected 'random', 'imagenet' or a file, "
                "found no such file"
            )
        status = os.stat(self.source)
        return replace(self, version=digest(self.source, status.st_size, status.st_mtime_ns))

    def __str__(self) -> str:
        """A file is named by its name and digest, wherever it lies."""
        name = Path(self.source).name
        if self.whole:
            name = f"all of {name}"
        return f"{name}:{self.version}" if self.version else name


@dataclass(frozen=True)
class RunConfig:
    """All that the numbers of one run depend on, but the device and the versions of packages.

    `make_run` makes one.
    """

    model: ModelConfig = PAPER
    data: DataConfig = DataConfig()
    train: TrainConfig = PAPER_TRAINING
    seed: int = 0
    cnn_start: Start = Start()
    transformer_start: Start = Start()

    def __post_init__(self):
        expect_fields(self)

    def to_dict(self) -> dict:
        """The run as plain data, for JSON."""
        plain = asdict(self)
        plain["cnn_start"] = str(self.cnn_start)
        plain["transformer_start"] = str(self.transformer_start)
        return plain

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the run's folder.

        They depend on the versions of files, so they are those of the trained run only once
        `with_versions` has looked these up.
        """
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_run(
    profile: str | Profile,
    config: ModelConfig = PAPER,
    *,
    seed: int = 0,
    data: DataConfig | None = None,
    weights: Mapping[str, str] | None = None,
) -> RunConfig:
    """The run of a configuration, given at the paper's scale, in a profile. Reads no file.

    Args:
        data: default: the profile's.
        weights: what branches start from, by the name of the backbone: {"resnet50": "r50.pth"}.
            Default: the profile's start. A backbone for which a "pretrained" profile has no
            stand-in starts at random.

    Raises:
        ValueError: an unknown profile, or weights for a backbone that the configuration is without.
    """
    profile = find_profile(profile)
    scaled = profile.scale(config)
    weights = weights or {}
    for backbone in weights:
        one_of("weights: backbone", backbone, [config.cnn, config.transformer])

    def start(backbone: str | None) -> Start:
        if backbone is None:
            return Start()
        source = profile.start
        if source == "pretrained":
            stand_in = profile.backbones.get(backbone)
            source = paths.WEIGHTS / f"{stand_in}.safetensors" if stand_in else "random"
        return Start(str(weights.get(backbone) or source))

    return RunConfig(
        model=scaled,
        data=data or profile.data,
        train=profile.train,
        seed=seed,
        cnn_start=start(config.cnn),
        transformer_start=start(config.transformer),
    )


def with_versions(run: RunConfig, data_root: str | Path | None = None) -> RunConfig:
    """The run with the versions of its files: of the data set and of the weights it starts from."""
    data = run.data
    if not data.version:
        data = replace(data, version=find_version(data, data_root or paths.DATA))
    return replace(
        run,
        data=data,
        cnn_start=run.cnn_start.with_version(run.model.cnn),
        transformer_start=run.transformer_start.with_version(run.model.transformer),
    )


def read_result(fingerprint: str, runs_root: str | Path) -> dict | None:
    """The result of one run, None if it has not finished.

    Raises ValueError, naming the file, if it is damaged or of another run.
    """
    path = Path(runs_root) / fingerprint / "result.json"
    if not path.exists():
        return None
    try:
        result = read_json(path)
        _check_result(result, fingerprint)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: expected the result of run {fingerprint}, found something else "
            f"({type(error).__name__}: {error}); delete the file to have the run evaluated again"
        ) from error
    return result


def _check_result(result: dict, fingerprint: str) -> None:
    """Raises an error of some kind for a result that lacks what its readers need."""
    if result["fingerprint"] != fingerprint:
        raise ValueError(f"that of run {result['fingerprint']}")
    for key in ("seed", "commit", "device", "seconds"):
        result[key]
    for key in ("name", "version"):
        result["data"][key]
    for feature in ("all", *result["features"]):
        for metric, value in result["features"][feature].items():
            if not 0 <= value <= 1:
                raise ValueError(f"{feature}/{metric} is {value!r}, not a fraction of 1")


class RunFolder:
    """The folder of one configuration, whether the run is finished or not."""

    def __init__(self, config: RunConfig, runs_root: str | Path):
        self.config = config
        self.path = Path(runs_root) / config.fingerprint
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.metrics_file = self.path / "metrics.jsonl"
        self.without_cameras_file = self.path / "without_cameras.json"
        self.lock = self.path / f"{config.fingerprint}.lock"

    @property
    def finished(self) -> bool:
        return self.result is not None

    @property
    def result(self) -> dict | None:
        """What was measured at the last epoch (`read_result`)."""
        return read_result(self.path.name, self.path.parent)

    @property
    def metrics(self) -> pd.DataFrame:
        """A row for each line of `metrics.jsonl`.

        `kind` is "step", "epoch", "evaluation" (a row a feature) or "attention" (a row a head, see
        `evaluation.attention`).
        """
        return pd.DataFrame(read_lines(self.metrics_file))

    def model(self, device: str | torch.device = "cpu") -> FusionReID:
        """The model as trained, in evaluation mode."""
        return checkpoints.load(self.checkpoint, device)

    @contextmanager
    def held(self, resume: bool = True) -> Iterator[None]:
        """Holds the run's lock: other commands that want to train this run wait.

        Removes the temporary files of processes that were killed and, unless `resume`, the
        checkpoint. If the work stops early, a message says what is kept.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.lock):
            temporary = [*self.path.glob(".*.*.*"), *self.path.glob(".tmp*")]  # safetensors' own
            for leftover in temporary:
                leftover.unlink(missing_ok=True)
            if not resume and not self.finished:
                for measured in (self.checkpoint, self.without_cameras_file):
                    measured.unlink(missing_ok=True)
            try:
                yield
            except (FloatingPointError, ValueError):  # the same command would come to the same end
                raise
            except BaseException:
                if self.checkpoint.exists():
                    print(
                        f"Run {self.config.fingerprint} stopped: its last saved epoch is kept "
                        f"in {self.path}; the same command continues from there.",
                        file=sys.stderr,
                    )
                raise
        with suppress(OSError):  # on Windows, where another process waits for it
            self.lock.unlink()

    def restore(
        self, model: FusionReID, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> tuple[int, float, list[dict]]:
        """Loads the last saved epoch into model, optimizer and scaler, if there is one.

        Returns its number (0: none is finished), and until then the seconds of training and the
        lines of metrics.jsonl. The evaluation of that epoch is left out of the lines, as it may
        have been cut off, and is done again. Raises ValueError, naming the file, for one that is
        damaged.
        """
        if not self.checkpoint.exists():
            return 0, 0.0, []
        file = self.checkpoint
        try:
            saved = checkpoints.read_state(file)
            epoch = int(saved["epoch"])
            seconds = float(saved["seconds"])
            is_last = epoch >= self.config.train.epochs
            checkpoints.restore(file, model, None if is_last else optimizer)
            scaler.load_state_dict(saved["scaler"])
            file = self.metrics_file
            lines = [line for line in read_lines(file) if line["epoch"] <= epoch]
            again = [(epoch, "evaluation"), (epoch, "attention")]
            lines = [line for line in lines if (line["epoch"], line["kind"]) not in again]
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"{file}: cannot continue ({type(error).__name__}: {error}); "
                "train anew: --restart, or resume=False"
            ) from error
        return epoch, seconds, lines

    def write_config(self, environment: dict, weights_report: str) -> None:
        """Writes what the run is, and prints and writes what was loaded from files of weights."""
        config = {"fingerprint": self.config.fingerprint, **self.config.to_dict()}
        write_json(self.path / "config.json", config)
        write_json(self.path / "environment.json", environment)
        if weights_report:
            print(weights_report)
            write_text(self.path / "weights.txt", f"{weights_report}\n")

    def write_result(
        self, rankings: Mapping, dataset: Dataset, seconds: float, environment: dict
    ) -> None:
        """Writes the scores of each query, and `result.json`.

        `rankings` has the `Ranking` of each feature at the last epoch.
        """
        for name in ("average_precision", "first_match"):
            scores = {}
            for feature, ranking in rankings.items():
                scores[feature] = np.full(len(dataset.query), np.nan)
                scores[feature][ranking.queries] = getattr(ranking, name)
            with atomic_write(self.path / f"{name}.npz") as temporary:
                np.savez_compressed(temporary, **scores)
        result = {
            "fingerprint": self.config.fingerprint,
            "data": {"name": dataset.name, "version": dataset.version},
            "seed": self.config.seed,
            "epochs": self.config.train.epochs,
            "commit": environment["commit"],
            "device": environment["device"],
            "processes": environment["processes"],
            "seconds": round(seconds, 2),
            "features": {feature: ranking.summary() for feature, ranking in rankings.items()},
        }
        write_json(self.path / "result.json", result)
