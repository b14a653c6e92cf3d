"""Weights for the demo's small branches, as ImageNet's for the paper's: learnt on other rendered people.

`python -m fusionreid pretrain` trains each stand-in alone to name what the people of a synthetic set look like
(clothes, colours, build, gait ...) and to hold the images of one together, and writes its backbone to
`fusionreid/weights/`. No training or test set has the seed of these people.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file

from . import paths
from .config import DataConfig, ModelConfig, TrainConfig, one_of
from .data.synthetic import RENDERER
from .files import atomic_write
from .jobs import train_missing
from .training.runs import RunConfig, RunFolder

PEOPLE = DataConfig(size="pretrain", seed=1000, version=f"v{RENDERER}")
_BASE = TrainConfig(
    task="attributes", optimizer="adamw", warmup_epochs=1, learning_rate_start=3e-4, learning_rate=3e-3,
    weight_decay=0.05, identities=16, images=4, erasing=0.2, evaluate_every=5,
)  # fmt: skip
_CNN, _TRANSFORMER = (
    replace(_BASE, epochs=40),
    replace(_BASE, epochs=60, learning_rate=2e-3, padding=5),
)
RECIPES: dict[str, TrainConfig] = {
    "test_resnet_small": _CNN,
    "test_vit_small": _TRANSFORMER,
    "test_deit_small": replace(
        _TRANSFORMER, epochs=30
    ),  # the same network as the one before, less learnt
    "test_resnet_deep": _CNN,
    "test_t2t_vit": replace(_TRANSFORMER, epochs=24),  # an epoch takes half as long again
    "test_resnet_deeper": _CNN,
}


def run_of(name: str) -> RunConfig:
    """The training of one stand-in alone."""
    one_of("stand-in", name, RECIPES)
    branch = (
        {"cnn": name, "transformer": None}
        if "resnet" in name
        else {"cnn": None, "transformer": name}
    )
    return RunConfig(
        ModelConfig(**branch, image_size=(128, 64), fusion=None), PEOPLE, RECIPES[name]
    )


def pretrain(
    names: Sequence[str] | None = None,
    *,
    folder: str | Path = paths.WEIGHTS,
    runs_root: str | Path = paths.RUNS,
    data_root: str | Path = paths.DATA,
) -> list[Path]:
    """Trains the stand-ins that have no finished run, side by side, and writes the weights of all.

    Returns the files: safetensors in float16, with the run, its accuracy on other people and the command as metadata.
    """
    runs, files = {name: run_of(name) for name in names or RECIPES}, []
    train_missing(runs, Path(runs_root), data_root)
    for name, run in runs.items():
        found = RunFolder(run, Path(runs_root))
        branch = next(iter(found.model().branches.values()))
        tensors = {
            key: value.contiguous() for key, value in branch.half().base.state_dict().items()
        }
        about = {
            "command": f"python -m fusionreid pretrain {name}",
            "run": run.describe(),
            "result": found.result,
        }
        files.append(Path(folder) / f"{name}.safetensors")
        with atomic_write(files[-1]) as temporary:
            save_file(
                tensors, temporary, metadata={"about": json.dumps(about)}
            )  # one key: several come in any order
    return files
