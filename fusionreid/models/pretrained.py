"""Weights from a file for one branch: ImageNet's or those pre-trained on people, whatever their naming (Sec. IV.B).

Reads safetensors and `torch.save` files (tensors only, no code is run), finds the network inside whatever wraps it
(`state_dict`, `teacher`, `module.encoder_q.` ...), resizes position embeddings, and reports what became of each tensor.
"""

import argparse
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PosixPath, PurePosixPath

import numpy as np
import safetensors.torch
import torch
from timm.layers import resample_patch_embed
from timm.models import clean_state_dict
from torch import Tensor, nn

from ..files import mistaken
from .backbones import resize_positions

# What training scripts wrap a state dict in, the first found wins. Self-distillation (DINO, TransReID-SSL, PersonViT,
# CION) keeps a teacher and a student, and publishes the teacher.
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

# What such files hold besides tensors: arguments and measured numbers.
_HARMLESS = [argparse.Namespace, PosixPath, PurePosixPath, np.dtype]
_HARMLESS += [np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType]
_HARMLESS += [
    (np._core.multiarray.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")
]

LEAST = 0.95  # of a branch's numbers, which a file has to fill
Source = str | Path | Mapping  # a file, or a dictionary as `torch.load` gives it


@dataclass
class Report:
    """What became of each tensor; `print` it."""

    source: str  # the file, or "state dict"
    prefix: str = ""  # what stands in the file before the network's names
    loaded: list[str] = field(default_factory=list)  # names, the branch's, copied as they were
    resized: dict[str, str] = field(default_factory=dict)  # the branch's name to what was done
    random: dict[str, str] = field(
        default_factory=dict
    )  # the branch's name to the reason why it stays as initialised
    unused: list[str] = field(
        default_factory=list
    )  # names, the file's: classifiers, projection heads, other networks

    def __str__(self) -> str:
        filled = len(self.loaded) + len(self.resized)
        unused = list(_shorten(dict.fromkeys(self.unused)))
        unused[8:] = [f"... ({len(self.unused)} in all)"] if len(unused) > 8 else []
        under = f" under {self.prefix!r}" if self.prefix else ""
        lines = [
            f"{self.source}{under}: {filled} of the branch's {filled + len(self.random)} tensors"
        ]
        lines += [f"  resized        {name}: {how}" for name, how in self.resized.items()]
        lines += [f"  left at random {name}: {why}" for name, why in _shorten(self.random).items()]
        lines += [f"  unused         {', '.join(unused)}"] if unused else []
        return "\n".join(lines)


def _kind(name: str) -> str:
    """A tensor's name without its numbers: "blocks.*.attn.qkv.bias"."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _shorten(names: dict[str, str]) -> dict[str, str]:
    """Names that differ in numbers only become one, "blocks.*.attn.qkv.bias (12)", with the first one's value."""
    counts, first = Counter(map(_kind, names)), {}
    for name, value in names.items():
        first.setdefault(_kind(name), (name, value))
    return {
        f"{kind} ({counts[kind]})" if counts[kind] > 1 else name: why
        for kind, (name, why) in first.items()
    }


def describe(source: Source) -> str:
    """How messages name a source."""
    return "state dict" if isinstance(source, Mapping) else str(source)


def read_tensors(source: Source) -> dict[str, Tensor]:
    """The tensors of a file or a state dict, by name, out of all wrappers, without the `module.` of parallel training.

    Raises FileNotFoundError, or ValueError naming the file, if reading it would run code or it has no tensors.
    """
    content = source if isinstance(source, Mapping) else _read(Path(source))
    while not any(isinstance(value, Tensor) for value in content.values()):
        inner = next(
            (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None
        )
        if inner is None:
            keys = ", ".join(map(str, list(content)[:8])) or "(none)"
            expected = f"expected tensors by name, or one of {', '.join(WRAPPERS)} around them"
            raise ValueError(f"{describe(source)}: {expected}; found the keys {keys}")
        content = inner
    return clean_state_dict(
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
    )


def _read(path: Path) -> Mapping:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected a file of weights, found {'a folder' if path.is_dir() else 'none'}"
        )
    with open(path, "rb") as file:
        is_safetensors = (
            file.read(9)[8:] == b"{" or path.suffix == ".safetensors"
        )  # JSON after eight bytes of length
    try:
        if is_safetensors:
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # of many kinds, for a file that is none of torch.save or only its beginning
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = (
            f"a {code[1]}; torch.save its tensors alone"
            if code
            else "something else, or a part of such a file"
        )
        found = mistaken(path) or found
        kind = (
            "safetensors"
            if is_safetensors
            else "tensors of torch.save, readable without running code"
        )
        raise ValueError(f"{path}: expected {kind}; found {found}") from error
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{path}: expected a dictionary of tensors; found a {type(content).__name__}"
        )
    return content


def _prefix(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """What stands in the file before most of the target's names; of MoCo's two networks the query's, else the first."""
    counts: Counter[str] = Counter()
    for name, value in tensors.items():
        for dots in range(name.count(".") + 1):
            inner = name.split(".", dots)[-1]
            if inner in target and target[inner].ndim == value.ndim:
                counts[name.removesuffix(inner)] += 1
    return max(counts, key=lambda prefix: (counts[prefix], "encoder_q" in prefix), default="")


def positions_grid(count: int) -> tuple[int, int]:
    """Rows and columns of `count` positions: a square, ImageNet's, or the shape nearest to a person, 2.2 to 1."""
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    grids = [(count // width, width) for width in range(1, side + 1) if count % width == 0]
    return min(grids, key=lambda grid: abs(math.log(grid[0] / grid[1] / 2.2)))


def _fit(
    name: str, value: Tensor, place: Tensor, branch: nn.Module, distilled: bool
) -> tuple[Tensor, str]:
    """The tensor for this place, and in words what was done to it ("": nothing).

    Position embeddings (1, 1 + h * w, D) are resized to the grid; a grid of as many positions stays, and DeiT's
    distillation token (a second one) goes. A patch projection is resized to the branch's patches.
    """
    done = []
    if name == "pos_embed" and value.shape[::2] == place.shape[::2]:
        if distilled:
            value = torch.cat([value[:, :1], value[:, 2:]], dim=1)
            done.append("without the distillation token's")
        if value.shape != place.shape:
            old, new = positions_grid(value.shape[1] - 1), branch.grid
            value = resize_positions(value, old, new)
            done.append(f"grid {old[0]} x {old[1]} to {new[0]} x {new[1]}")
    elif (
        name == "patch_embed.proj.weight"
        and value.shape[:2] == place.shape[:2]
        and value.shape != place.shape
    ):
        old, new = value.shape[2:], place.shape[2:]
        return resample_patch_embed(
            value, new
        ), f"patches of {old[0]} x {old[1]} to {new[0]} x {new[1]} pixels"
    return value, ", ".join(done)


def load_branch(branch: nn.Module, source: Source) -> Report:
    """Loads weights into a branch's `base`, in place.

    For a CNN: torchvision's and timm's ResNets, MoCo's (LUPerson), DINO's (CION), and so on. For a Transformer: timm's
    ViT, DeiT (also distilled), T2T-ViT, DINO's, TransReID-SSL's, PersonViT's. Raises ValueError, naming source and
    tensors, if it is of another network, or holds numbers that are not finite.
    """
    tensors, target = read_tensors(source), branch.base.state_dict()
    report, new = Report(describe(source), prefix=_prefix(tensors, target)), {}
    distilled = any(report.prefix + token in tensors for token in ("dist_token", "distill_token"))
    for full, value in tensors.items():
        name = full.removeprefix(report.prefix)
        if name not in target or not full.startswith(report.prefix):
            report.unused.append(full)
            continue
        if not value.isfinite().all():
            raise ValueError(f"{report.source}: {full} holds numbers that are not finite")
        value, how = _fit(name, value, target[name], branch, distilled)
        if value.shape != target[name].shape:
            report.random[name] = (
                f"{tuple(value.shape)} in the file, {tuple(target[name].shape)} in the branch"
            )
            report.unused.append(full)
            continue
        new[name] = value
        report.resized |= {name: how} if how else {}
        report.loaded += [] if how else [name]
    absent = [
        name for name in target if name not in new and not name.endswith("num_batches_tracked")
    ]
    report.random = dict.fromkeys(absent, "not in the file") | report.random
    _check(report, target)
    branch.base.load_state_dict(new, strict=False)
    return report


def _check(report: Report, target: Mapping[str, Tensor]) -> None:
    """Refuses another network, which would leave nothing worth fine-tuning, and a deeper one."""
    first = next(
        name for name, value in target.items() if name.endswith(".weight") and value.ndim > 1
    )
    filled = 1 - sum(target[name].numel() for name in report.random) / sum(
        map(Tensor.numel, target.values())
    )
    kinds = set(map(_kind, target))
    unused = {full: full.removeprefix(report.prefix) for full in report.unused}
    deeper = [full for full, name in unused.items() if name not in target and _kind(name) in kinds]
    if filled < LEAST or first in report.random or deeper:
        left = "; ".join(
            f"{name}: {why}" for name, why in list(_shorten(report.random).items())[:3]
        )
        raise ValueError(
            f"{report.source}: weights of another network: expected to fill the first layer ({first}) and {LEAST:.0%} "
            f"of the branch, and no deeper layers, found {filled:.0%}. Not filled: {left or 'nothing'}. "
            f"Not used: {', '.join((deeper or report.unused)[:4]) or 'nothing'}"
        )


def load_weights(model: nn.Module, **sources: Source) -> dict[str, Report]:
    """Loads `cnn=` and `transformer=`, if given; the reports by branch. Raises ValueError as `load_branch`."""
    for name in sources.keys() - model.branches.keys():
        raise ValueError(
            f"{describe(sources[name])}: weights for the {name} branch, which this model is without"
        )
    return {name: load_branch(model.branches[name], source) for name, source in sources.items()}
