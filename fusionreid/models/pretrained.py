"""Weights from a file for one branch: ImageNet's or those pre-trained on people, whatever their naming (Sec. IV.B).

Reads safetensors and `torch.save` files (tensors only, no code is run), finds the network inside whatever wraps it
(`state_dict`, `teacher`, `module.encoder_q.` ...), resizes position embeddings, and reports what became of each tensor.
"""

from __future__ import annotations

import argparse
import math
import pickle
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PosixPath, PurePosixPath

import numpy as np
import safetensors.torch
import torch
from einops import rearrange
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor, nn

from .backbones import patch_grid, resize_positions

# What training scripts wrap a state dict in, the first found wins. Self-distillation (DINO, TransReID-SSL, PersonViT,
# CION) keeps a teacher and a student, and publishes the teacher.
WRAPPERS = ("state_dict", "state_dict_ema", "model", "model_ema", "teacher", "student", "net", "params")

# What such files hold besides tensors: arguments and measured numbers.
_HARMLESS = [
    argparse.Namespace,
    PosixPath,
    PurePosixPath,
    np.dtype,
    np.dtypes.Float64DType,
    np.dtypes.Float32DType,
    np.dtypes.Int64DType,
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),
]

# Image sizes and strides of patches that position embeddings of people have, the usual ones first.
SIZES = ((256, 128), (384, 128))
STRIDES = (12, 16, 14, 10, 8)
_GRIDS = [patch_grid(size, stride) for stride in STRIDES for size in SIZES]
LEAST = 0.95  # of a branch's numbers, which a file has to fill

# torchvision's names of a ViT's layers, and timm's (which DeiT, DINO, TransReID and T2T-ViT share).
_TORCHVISION_VIT = [
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    (r"^(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.self_attention\.out_proj\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.mlp\.(?:0|linear_1)\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.mlp\.(?:3|linear_2)\.", r"\1.mlp.fc2."),
]


@dataclass
class Report:
    """What became of each tensor; `print` it.

    Attributes:
        source: the file, or "state dict".
        prefix: what stood before the network's names in the file.
        loaded: names, the branch's, copied as they were.
        resized: name to what was done.
        random: the branch's name to the reason why it stays as initialised.
        unused: names, the file's, that the branch has no place for (classifiers, projection heads, other networks).
    """

    source: str
    prefix: str = ""
    loaded: list[str] = field(default_factory=list)
    resized: dict[str, str] = field(default_factory=dict)
    random: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.resized) + len(self.random)
        unused = list(_shorten(dict.fromkeys(self.unused)))
        unused = [*unused[:8], *[f"... ({len(self.unused)} in all)"] * (len(unused) > 8)]
        under = f" under {self.prefix!r}" if self.prefix else ""
        lines = [f"{self.source}{under}: {len(self.loaded) + len(self.resized)} of the branch's {total} tensors"]
        lines += [f"  resized        {name}: {how}" for name, how in self.resized.items()]
        lines += [f"  left at random {name}: {why}" for name, why in _shorten(self.random).items()]
        if unused:
            lines.append(f"  unused         {', '.join(unused)}")
        return "\n".join(lines)


def _kind(name: str) -> str:
    """A tensor's name without its numbers: "blocks.*.attn.qkv.bias"."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


def _shorten(names: dict) -> dict:
    """Names that differ in numbers only become one, "blocks.*.attn.qkv.bias (12)", with the first one's value."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_kind(name), []).append(name)
    return {(f"{group} ({len(some)})" if len(some) > 1 else some[0]): names[some[0]] for group, some in groups.items()}


# What torch.load raises for a file that is no file of tensors, or the beginning of one.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    struct.error,
)


def read_tensors(source: str | Path | Mapping) -> dict[str, Tensor]:
    """The tensors of a file or of a (wrapped) state dict, by name, unwrapped; names are left as they are.

    Args:
        source: a path (`.safetensors`, or whatever `torch.save` wrote), or a dictionary as `torch.load` gives it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the file, if it cannot be read without running code, or holds no tensors.
    """
    where = describe(source)
    content = source if isinstance(source, Mapping) else _read(Path(source))
    while not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            raise ValueError(
                f"{where}: expected tensors by name, or one of {', '.join(WRAPPERS)} around them; "
                f"found the keys {', '.join(map(str, list(content)[:8])) or '(none)'}"
            )
        content = inner
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def describe(source: str | Path | Mapping) -> str:
    """How messages name a source."""
    return "state dict" if isinstance(source, Mapping) else str(source)


def _read(path: Path) -> Mapping:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise FileNotFoundError(f"{path}: expected a file of weights, found {found}")
    with open(path, "rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":  # a length of eight bytes, then JSON
        try:
            return safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path}: expected safetensors, found something else or a part of it ({error})") from error
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f"a {code[1]}; torch.save its tensors alone" if code else "something else, or a part of such a file"
        raise ValueError(f"{path}: expected tensors of torch.save, readable without running code; found {found}") from (
            error
        )
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a dictionary of tensors, found {type(content).__name__}")
    return content


def rename(name: str) -> str:
    """timm's name of a tensor of torchvision's ViT; every other name as it is."""
    for pattern, replacement in _TORCHVISION_VIT:
        name = re.sub(pattern, replacement, name)
    return name


def _locate(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> str:
    """The prefix in the file under which most of the target's names stand; of several MoCo's query, else the first."""
    counts: Counter[str] = Counter()
    for name, value in tensors.items():
        parts = name.split(".")
        for i in range(len(parts)):
            place = target.get(rename(".".join(parts[i:])))
            if place is not None and place.ndim == value.ndim:
                prefix = ".".join(parts[:i])
                counts[prefix + "." if prefix else ""] += 1
    return max(counts, key=lambda prefix: (counts[prefix], "encoder_q" in prefix), default="")


def positions_grid(count: int, aspect: float) -> tuple[int, int]:
    """Rows and columns of `count` positions: a square if it is one, a grid that re-identification has, else the shape
    nearest to `aspect` (h / w)."""
    side = math.isqrt(count)
    if side * side == count:
        return side, side
    for grid in _GRIDS:
        if grid[0] * grid[1] == count:
            return grid
    shapes = [(count // width, width) for width in range(1, count + 1) if count % width == 0]
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1] / aspect)))


def resize_checkpoint_positions(positions: Tensor, grid: tuple[int, int], prefix_tokens: int = 1) -> tuple[Tensor, str]:
    """A file's position embeddings (1, prefix + h * w, D) for another grid, as (1, 1 + rows * columns, D).

    Bilinear, corners not aligned; the class token's stays, and so does a grid of as many positions. A second prefix
    token is DeiT's distillation token, dropped.

    Returns:
        The embeddings, and in words what was done ("" if nothing).
    """
    count = positions.shape[1] - prefix_tokens
    old = tuple(grid) if count == grid[0] * grid[1] else positions_grid(count, grid[0] / grid[1])
    done = [f"grid {old[0]} x {old[1]} to {grid[0]} x {grid[1]}"] if old != tuple(grid) else []
    if prefix_tokens > 1:
        done.append("without the distillation token's")
    kept = torch.cat([positions[:, :1], positions[:, prefix_tokens:]], dim=1)
    return resize_positions(kept, old, tuple(grid)), ", ".join(done)


def _fit_patches(weight: Tensor, place: Tensor) -> tuple[Tensor, str]:
    """A patch projection (D, 3 * p * p), or of another patch size, as the convolution (D, 3, P, P) that `place` is."""
    if weight.ndim == 2 and weight.numel() == place.numel():
        height, width = place.shape[2:]
        return rearrange(weight, "d (c h w) -> d c h w", h=height, w=width), "linear to convolution"
    if weight.ndim == 4 and weight.shape[:2] == place.shape[:2] and weight.shape != place.shape:
        size = list(place.shape[2:])
        how = f"patches of {weight.shape[2]} x {weight.shape[3]} to {size[0]} x {size[1]} pixels"
        return resample_patch_embed(weight, size), how
    return weight, ""


def _load(base: nn.Module, source: str | Path | Mapping, grid: tuple[int, int] | None) -> Report:
    tensors, target = read_tensors(source), base.state_dict()
    report = Report(describe(source), prefix=_locate(tensors, target))
    new, misfits = {}, {}
    for full, value in tensors.items():
        name = rename(full.removeprefix(report.prefix)) if full.startswith(report.prefix) else None
        if name not in target:
            report.unused.append(full)
            continue
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{report.source}: {full} holds numbers that are not finite")
        place, how, value = target[name], "", value.to(torch.float32) if value.is_floating_point() else value
        if name == "pos_embed" and grid and value.shape[::2] == place.shape[::2]:
            distilled = any(report.prefix + token in tensors for token in ("dist_token", "distill_token"))
            value, how = resize_checkpoint_positions(value, grid, 2 if distilled else 1)
        elif name == "patch_embed.proj.weight":
            value, how = _fit_patches(value, place)
        if value.shape != place.shape:
            misfits[name] = f"{tuple(value.shape)} in the file, {tuple(place.shape)} in the branch"
            report.unused.append(full)
            continue
        new[name] = value
        if how:
            report.resized[name] = how
        else:
            report.loaded.append(name)
    absent = [name for name in target if name not in new and not name.endswith("num_batches_tracked")]
    report.random = {name: misfits.get(name, "not in the file") for name in absent}
    _check(report, target)
    base.load_state_dict(new, strict=False)
    return report


def _check(report: Report, target: Mapping[str, Tensor]) -> None:
    """A file that fits nothing, has another first layer, or is of another network leaves nothing worth fine-tuning."""
    if not report.loaded and not report.resized:
        raise ValueError(
            f"{report.source}: no tensor fits the branch. It has {', '.join(list(target)[:4])}, ...; "
            f"the file has {', '.join(report.unused[:4])}, ... "
            f"{'(' + next(iter(report.random.values())) + ')'}"
        )
    stem = next(name for name, value in target.items() if name.endswith(".weight") and value.ndim > 1)
    if stem in report.random:
        raise ValueError(
            f"{report.source}: the first layer does not fit: {stem}: {report.random[stem]}. It is of a "
            f"network with another stem ({', '.join(report.unused[:4])}, ...)"
        )
    total = sum(value.numel() for value in target.values())
    filled = total - sum(target[name].numel() for name in report.random)
    if filled < LEAST * total:
        left = "; ".join(f"{name}: {why}" for name, why in list(_shorten(report.random).items())[:3])
        raise ValueError(
            f"{report.source}: expected to fill {LEAST:.0%} of the branch or more, found {filled / total:.0%}: "
            f"weights of another network. Left over: {left}"
        )
    kinds = {_kind(name) for name in target}
    inside = {full: rename(full.removeprefix(report.prefix)) for full in report.unused}
    deeper = [full for full, name in inside.items() if name not in target and _kind(name) in kinds]
    if deeper:
        raise ValueError(f"{report.source}: of a deeper network; the branch has no {', '.join(deeper[:3])}, ...")


def load_cnn_weights(branch: nn.Module, source: str | Path | Mapping) -> Report:
    """Loads weights into a `CNNBranch`: torchvision's and timm's ResNets, MoCo's (LUPerson), DINO's (CION), and so on.

    Args:
        branch: the branch; its `base` is filled in place.
        source: a path or a state dict.

    Raises:
        ValueError: naming the file, if nothing of it fits, or not its first layer.
    """
    return _load(branch.base, source, None)


def load_transformer_weights(branch: nn.Module, source: str | Path | Mapping) -> Report:
    """Loads weights into a `TransformerBranch`: timm's and torchvision's ViT, DeiT (also distilled), T2T-ViT, DINO's,
    TransReID-SSL's, PersonViT's. Position embeddings are resized to the branch's grid.

    Args:
        branch: the branch; its `base` is filled in place.
        source: a path or a state dict.

    Raises:
        ValueError: naming the file, if nothing of it fits, or not its first layer (a convolutional stem, other tokens).
    """
    return _load(branch.base, source, branch.grid)


def load_weights(
    model: nn.Module, cnn: str | Path | Mapping | None = None, transformer: str | Path | Mapping | None = None
) -> dict[str, Report]:
    """Loads a file for each branch that one is given for; the reports by branch.

    Raises:
        ValueError: also if the model has no such branch.
    """
    loaders = {"cnn": (load_cnn_weights, cnn), "transformer": (load_transformer_weights, transformer)}
    reports = {}
    for name, (loader, source) in loaders.items():
        if source is None:
            continue
        if name not in model.branches:
            raise ValueError(f"{describe(source)}: weights for the {name} branch, which this model is without")
        reports[name] = loader(model.branches[name], source)
    return reports
