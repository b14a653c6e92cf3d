"""Weights for the demo's small branches, as ImageNet's for the paper's: learnt on other people.

`python -m fusionreid pretrain` trains each stand-in alone, on rendered people who are in no
training or test set. It learns to name what they look like (clothes, colours, build, gait ...),
and to hold the images of one person together. Its backbone goes to `fusionreid/weights/`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from . import paths
from .config import DataConfig, ModelConfig, TrainConfig, one_of
from .data import truth
from .data.datasets import open_data
from .files import atomic_write
from .jobs import train_missing
from .training.losses import PaperObjective
from .training.runs import RunConfig, RunFolder, with_versions

PEOPLE = DataConfig(size="pretrain", seed=1000)
_BASE = TrainConfig(
    optimizer="adamw",
    warmup_epochs=1,
    learning_rate_start=3e-4,
    learning_rate=3e-3,
    weight_decay=0.05,
    identities=16,
    images=4,
    erasing=0.2,
    evaluate_every=5,
)
_CNN = replace(_BASE, epochs=40)
_TRANSFORMER = replace(_BASE, epochs=60, learning_rate=2e-3, padding=5)
RECIPES: dict[str, TrainConfig] = {
    "test_resnet_small": _CNN,
    "test_vit_small": _TRANSFORMER,
    # The same network as the one before, which learns less.
    "test_deit_small": replace(_TRANSFORMER, epochs=30),
    "test_resnet_deep": _CNN,
    # An epoch takes half as long again.
    "test_t2t_vit": replace(_TRANSFORMER, epochs=24),
    "test_resnet_deeper": _CNN,
}


@dataclass(frozen=True)
class PretrainingRun(RunConfig):
    """A run with another objective than the paper's, which so has a fingerprint of its own."""

    objective: str = "attributes"


class AttributeObjective(PaperObjective):
    """Tells attributes of people apart, in place of identities; the triplet loss stays.

    `looks` (identities, attributes) has the class of each training identity by each attribute. The
    classifier's logits stand side by side, attribute by attribute.
    """

    def __init__(self, looks: np.ndarray):
        self.looks = torch.as_tensor(looks)
        self.sizes = (self.looks.amax(dim=0) + 1).tolist()  # classes of each attribute
        super().__init__(sum(self.sizes), _BASE)

    def cross_entropy(self, logits: Tensor, identities: Tensor) -> Tensor:
        """The cross entropies of all attributes, summed; logits (B, num_classes)."""
        looks = self.looks.to(identities.device)
        entropies = []
        for part, classes in zip(logits.split(self.sizes, dim=1), looks.unbind(dim=1), strict=True):
            # The classifier has no bias. The log of how often a class occurs stands for it.
            shares = torch.bincount(classes) / len(classes)
            entropies.append(F.cross_entropy(part + shares.log(), classes[identities]))
        return torch.stack(entropies).sum()


def run_of(name: str) -> PretrainingRun:
    """The training of one stand-in alone."""
    one_of("stand-in", name, RECIPES)
    is_cnn = "resnet" in name
    model = ModelConfig(
        cnn=name if is_cnn else None,
        transformer=None if is_cnn else name,
        image_size=(128, 64),
        fusion=None,
    )
    return with_versions(PretrainingRun(model, PEOPLE, RECIPES[name]))


def pretrain(
    names: Sequence[str] | None = None,
    *,
    folder: str | Path = paths.WEIGHTS,
    runs_root: str | Path = paths.RUNS,
    data_root: str | Path = paths.DATA,
) -> list[Path]:
    """Trains the stand-ins that have no finished run, side by side, and writes the weights of all.

    Returns the files: safetensors in float16. Their metadata have the run, its accuracy on other
    people, and the command that made them.
    """
    runs = {name: run_of(name) for name in names or RECIPES}
    dataset = open_data(PEOPLE, data_root)
    objective = AttributeObjective(truth.looks(dataset))
    train_missing(runs, Path(runs_root), data_root, objective=objective)
    files = []
    for name, run in runs.items():
        trained = RunFolder(run, runs_root)
        (branch,) = trained.model().branches.values()
        tensors = {
            key: value.contiguous() for key, value in branch.half().base.state_dict().items()
        }
        about = {
            "command": f"python -m fusionreid pretrain {name}",
            "run": run.to_dict(),
            "result": trained.result,
        }
        file = Path(folder) / f"{name}.safetensors"
        with atomic_write(file) as temporary:
            # One key of metadata, as safetensors writes several in any order.
            save_file(tensors, temporary, metadata={"about": json.dumps(about)})
        files.append(file)
    return files
