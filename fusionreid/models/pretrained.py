"""Weights from a file for one branch: ImageNet's, or those pre-trained on people (Sec. IV.B).

Safetensors and `torch.save` files are read, under the names of any public network that the branch
knows. Whatever wraps the network is taken off (`state_dict`, `teacher`, `module.encoder_q.` ...),
position embeddings are resized, and a report says what became of each tensor. No code of a file is
run.
"""

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PosixPath

import numpy as np
import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor, nn

from ..files import mistaken
from .backbones import resize_positions

# The keys under which training scripts store a network; the first that a file has is taken. With
# self-distillation (DINO, TransReID-SSL, PersonViT, CION) the teacher is the network to use.
WRAPPERS = (
    "state_dict",
    "state_dict_ema",
    "model",
    "model_ema",
    "teacher",
    "student",
    "net",
    "params",
)

# What torch may read besides tensors: such files also hold arguments and measured numbers.
HARMLESS = [
    argparse.Namespace,
    PosixPath,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
]

LEAST_FILLED = 0.95  # the share of a branch's numbers that has to be in the file

Source = str | Path | Mapping  # a file, or a dictionary as `torch.load` gives it


@dataclass
class Report:
    """What became of each tensor.

    Attributes:
        source: the file, or "state dict".
        prefix: what stands before the network's names in the file.
        loaded: the branch's names of the tensors that were copied as they are.
        resized: the branch's names, with what was done.
        random: the branch's names of the tensors that keep their random values, with the reason.
        unused: the file's names: classifiers, projection heads, other networks.
    """

    source: str
    prefix: str = ""
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    random: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        filled = len(self.loaded) + len(self.resized)
        under = f" under {self.prefix!r}" if self.prefix else ""
        number = filled + len(self.random)
        lines = [f"{self.source}{under}: {filled} of the branch's {number} tensors"]
        for name, how in self.resized.items():
            lines.append(f"  resized        {name}: {how}")
        for reason in dict.fromkeys(self.random.values()):
            names = [name for name, why in self.random.items() if why == reason]
            lines.append(f"  left at random {_listed(names)}: {reason}")
        if self.unused:
            lines.append(f"  unused         {_listed(self.unused)}")
        return "\n".join(lines)


def _listed(names: list[str]) -> str:
    rest = [f"... ({len(names)} in all)"] if len(names) > 8 else []
    return ", ".join(names[:8] + rest)


def describe(source: Source) -> str:
    """How messages name a source."""
    return "state dict" if isinstance(source, Mapping) else str(source)


def read_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a file or a state dict by name, without wrappers and without `module.`.

    Raises FileNotFoundError, or ValueError naming the file: it has no tensors, or reading it would
    run code.
    """
    content = source if isinstance(source, Mapping) else _read(Path(source))
    while inner := [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]:
        content = inner[0]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(content)[:8]) or "(none)"
        raise ValueError(
            f"{describe(source)}: expected tensors by name, or one of {', '.join(WRAPPERS)} "
            f"around them; found the keys {keys}"
        )
    return clean_state_dict(tensors)


def _read(path: Path) -> Mapping:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a file of weights, found none")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has many kinds for a file that is cut or something else
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = "something else, or a part of such a file"
        if code:
            found = f"a {code[1]}; torch.save its tensors alone"
        raise ValueError(
            f"{path}: expected safetensors, or tensors of torch.save; "
            f"found {mistaken(path) or found}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected tensors by name; found a {type(content).__name__}")
    return content


def load_weights(model: nn.Module, **sources: Source) -> dict[str, Report]:
    """Loads weights into the branches `cnn=` and `transformer=`, if given; the reports by branch.

    Raises ValueError as `load_branch`, and if the model does not have the branch.
    """
    for name in sources.keys() - model.branches.keys():
        raise ValueError(
            f"{describe(sources[name])}: weights for the {name} branch, which this model is without"
        )
    return {name: load_branch(model.branches[name], source) for name, source in sources.items()}


def load_branch(branch: nn.Module, source: Source) -> Report:
    """Loads weights into a branch's `base`, in place.

    For a CNN: torchvision's and timm's ResNets, MoCo's (LUPerson), DINO's (CION), and so on. For a
    Transformer: timm's ViT, DeiT (also distilled), T2T-ViT, DINO's, TransReID-SSL's, PersonViT's.

    Raises ValueError, naming source and tensors, if the weights are of another network, or if
    numbers are not finite.
    """
    tensors = read_tensors(source)
    target = branch.base.state_dict()
    report = Report(describe(source), _prefix(tensors, target))
    weights = {}
    for full_name, value in tensors.items():
        name = full_name.removeprefix(report.prefix)
        if name not in target or not full_name.startswith(report.prefix):
            report.unused.append(full_name)
            continue
        if not value.isfinite().all():
            raise ValueError(f"{report.source}: {full_name} holds numbers that are not finite")
        if name == "pos_embed" and f"{report.prefix}dist_token" in tensors:
            value = torch.cat([value[:, :1], value[:, 2:]], dim=1)  # DeiT's distillation token goes
        shape = target[name].shape
        if value.shape == shape:
            report.loaded.append(name)
        elif name == "pos_embed" and value.ndim == 3 and value.shape[-1] == shape[-1]:
            old = positions_grid(value.shape[1] - 1)
            new = branch.grid
            value = resize_positions(value, old, new)
            report.resized[name] = f"grid {old[0]} x {old[1]} to {new[0]} x {new[1]}"
        else:
            report.random[name] = f"{tuple(value.shape)} in the file, {tuple(shape)} in the branch"
            report.unused.append(full_name)
            continue
        weights[name] = value
    for name in target:
        if name not in weights and not name.endswith("num_batches_tracked"):
            report.random.setdefault(name, "not in the file")
    _refuse_another_network(report, target)
    branch.base.load_state_dict(weights, strict=False)
    return report


def _prefix(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """What stands in the file before the network's names: before that of its first tensor."""
    first = next(iter(target))
    prefixes = [name.removesuffix(first) for name in tensors if f".{name}".endswith(f".{first}")]
    # The shortest one: "layer1.0.conv1.weight" ends like "conv1.weight". And MoCo's file has two
    # networks of one size, of which `encoder_q` was trained.
    return min(prefixes, key=lambda prefix: ("encoder_q" not in prefix, len(prefix)), default="")


def positions_grid(count: int) -> tuple[int, int]:
    """Rows and columns of `count` positions.

    A square, as ImageNet's are, or else the grid whose shape is nearest to a person's, 2.2 to 1.
    """
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    grids = [(count // width, width) for width in range(1, side + 1) if count % width == 0]
    return min(grids, key=lambda grid: abs(math.log(grid[0] / grid[1] / 2.2)))


def _refuse_another_network(report: Report, target: Mapping[str, Tensor]) -> None:
    """Raises ValueError if the file fills too little of the branch, or has more in its blocks.

    More blocks are those of a deeper network. Other parts in a block, such as LayerScale, squeeze
    and excitation or instance norms, compute something that the branch does not.
    """
    first = next(
        name for name, value in target.items() if name.endswith(".weight") and value.ndim > 1
    )
    random = sum(target[name].numel() for name in report.random)
    filled = 1 - random / sum(value.numel() for value in target.values())
    stages = {name.split(".")[0] for name in target if re.match(r"\w+\.\d", name)}
    foreign = []
    for full_name in report.unused:
        name = full_name.removeprefix(report.prefix)
        if name not in target and name.split(".")[0] in stages:
            foreign.append(full_name)
    if filled >= LEAST_FILLED and first not in report.random and not foreign:
        return
    reasons = [f"{name}: {why}" for name, why in report.random.items()]
    raise ValueError(
        f"{report.source}: weights of another network: expected to fill the first layer ({first}) "
        f"and {LEAST_FILLED:.0%} of the branch, and no other parts of blocks, found {filled:.0%}. "
        f"Not filled: {'; '.join(reasons[:3]) or 'nothing'}. "
        f"Not used: {', '.join((foreign or report.unused)[:4]) or 'nothing'}"
    )
