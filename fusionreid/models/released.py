"""Checkpoints of the authors' released code, loaded here and written back.

Each of our tensors has one name there, `released_name`. The configuration is deduced from names and shapes
(`deduce`); the order of the units in an HTM and the number of heads leave no trace and are given. DeiT-B/16 and
ViT-B/16 are one network with other weights: both are deduced as ViT-B/16.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import RELEASED, FusionConfig, ModelConfig
from ..files import atomic_write
from ..training.checkpoint import write_tensors
from .backbones import patch_grid
from .fusion import BRANCHES
from .fusionreid import FusionReID, Head, build_model
from .pretrained import SIZES, STRIDES, describe, read_tensors
from .t2t_vit import soft_split_grids

# Heads of ImageNet that the released code keeps and never calls.
UNUSED = re.compile(r"^(transformer\.base\.(fc|head)|resnet\.base\.fc)\.(weight|bias)$")

_BRANCH = {"cnn": "resnet", "transformer": "transformer"}
_LRU = {"cnn": "res_LRU", "transformer": "former_LRU"}
_POOL = {"cnn": "gap_r.p", "transformer": "gap_f.p"}
_HEAD = {"cnn_refined": 1, "transformer_refined": 2, "cnn_fused": 3, "transformer_fused": 4}
_HEAD_PART = {"neck": "bottleneck", "classifier": "classifier"}
_LRU_PART = {"depthwise": "dwconv", "norm1": "bn1", "pointwise": "ptconv", "norm2": "bn2"}
_UNIT_PART = (
    ("attention.key_norm.", "attn.norm."),
    ("attention.", "attn."),
    ("ffn.0.", "mlp.fc1."),
    ("ffn.2.", "mlp.fc2."),
)

# The units' names in an HTM by (unit, shared). "MFU" for a shared one is our choice: no published checkpoint has one.
Units = dict[str, dict[str, str]]
_UNITS = {
    ("seu", False): {"cnn": "SEU1", "transformer": "SEU2"},
    ("seu", True): {"cnn": "SEU", "transformer": "SEU"},
    ("mfu", False): {"cnn": "MUF_RES", "transformer": "MFU_FORMER"},
    ("mfu", True): {"cnn": "MFU", "transformer": "MFU"},
}

_RESNETS = {
    (3, 4, 6, 3): {True: "resnet50", False: "resnet34"},
    (3, 4, 23, 3): {True: "resnet101"},
    (3, 8, 36, 3): {True: "resnet152"},
    (2, 2, 2, 2): {False: "resnet18"},
}
_VITS = {(768, 12): "vit_base_patch16_224", (384, 12): "vit_small_patch16_224", (192, 12): "vit_tiny_patch16_224"}


def load(
    checkpoint: str | Path | Mapping,
    config: ModelConfig | None = None,
    keep_classifiers: bool = True,
    num_classes: int | None = None,
) -> FusionReID:
    """The model of a released checkpoint, in evaluation mode.

    Args:
        checkpoint: a path or a state dict, wrapped (`state_dict`, `model`) or not, with or without `module.`.
        config: None deduces it. Give `replace(deduce(checkpoint), ...)` for units in the reverse order, heads other
            than 12, or branches that `deduce` does not know.
        keep_classifiers: loads the classifiers too; False leaves them as initialised.
        num_classes: of the new classifiers, where they are not kept; None: as many as in the checkpoint.

    Raises:
        ValueError: naming the checkpoint and each tensor that is missing, unknown, of another shape or type, or holds
            numbers that are not finite.
    """
    where, tensors = describe(checkpoint), _tensors(checkpoint)
    config = config or _deduce(tensors, where)
    units = _units(tensors, where)
    for unit, names in units.items():
        shared = len(set(names.values())) == 1
        if config.fusion and unit in config.fusion.units and getattr(config.fusion, f"share_{unit}") != shared:
            raise ValueError(
                f"{where}: FusionConfig.share_{unit}={not shared}, but an HTM holds "
                f"{' and '.join(dict.fromkeys(names.values()))}"
            )
    for unit in config.fusion.units if config.fusion else ():
        units.setdefault(unit, _UNITS[unit, getattr(config.fusion, f"share_{unit}")])
    classifiers = [name for name in tensors if re.search(r"(^|\.)classifier(_\d)?\.weight$", name)]
    if keep_classifiers and num_classes is not None:
        raise ValueError("num_classes is for keep_classifiers=False; kept classifiers have the checkpoint's classes")
    rows = Counter(len(tensors[name]) for name in classifiers if tensors[name].ndim == 2)
    classes = num_classes or max(rows, key=rows.get, default=num_classes)  # one damaged classifier is outvoted
    if classes is None:
        raise ValueError(f"{where}: holds no classifier; give keep_classifiers=False and num_classes")
    embedding = "transformer.base.sie_embed"
    cameras = _shape(tensors, embedding, 3, where)[0] if embedding in tensors else 0
    with torch.device("meta"):  # no time spent on random weights
        model = build_model(config, classes, cameras if config.transformer else 0)

    places = model.state_dict()
    names = {ours: released_name(ours, units) for ours in places}
    if not keep_classifiers:
        names = {ours: theirs for ours, theirs in names.items() if not ours.endswith(".classifier.weight")}
    _account(
        where,
        tensors,
        {theirs: places[ours] for ours, theirs in names.items()},
        ignore=[] if keep_classifiers else classifiers,
    )
    model.to_empty(device="cpu")
    if not keep_classifiers:
        for name, width in model.widths.items():
            model.heads[name].classifier = Head(width, classes).classifier
    model.load_state_dict({ours: tensors[theirs] for ours, theirs in names.items()}, strict=keep_classifiers)
    return model.eval()


def save(model: FusionReID, path: str | Path) -> None:
    """Writes the model under the released code's names: safetensors if the path ends so, else `torch.save`.

    The ImageNet heads that the released code keeps and never calls are written as zeros, so that a strict load works.

    Raises:
        ValueError: naming the field in which the model computes what the released code cannot.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in export(model).items()}
    if Path(path).suffix == ".safetensors":
        write_tensors(tensors, path)
    else:
        with atomic_write(path) as temporary:
            torch.save(tensors, temporary)


def export(model: FusionReID) -> dict[str, Tensor]:
    """The model's tensors by the released code's names.

    Raises:
        ValueError: naming the field in which the model computes what the released code cannot.
    """
    config = model.config
    ours = {"stem": config.stem} if config.cnn else {}
    fields = ("kernel", "seu_norm", "mfu_residual")
    ours |= {field: getattr(config.fusion, field) for field in fields if config.fusion}
    for field, value in ours.items():
        expected = RELEASED.stem if field == "stem" else getattr(RELEASED.fusion, field)
        if value != expected:
            raise ValueError(
                f"{field}={value!r}: the released code has only {field}={expected!r}, and would compute "
                "something else from these weights"
            )
    shared = {unit: getattr(config.fusion, f"share_{unit}") for unit in ("seu", "mfu") if config.fusion}
    units = {unit: _UNITS[unit, share] for unit, share in shared.items()}
    tensors = {released_name(name, units): value for name, value in model.state_dict().items()}
    if config.transformer:
        width = model.branches["transformer"].width
        is_t2t = "transformer.base.tokens_to_token.project.weight" in tensors
        name, classes = ("head", model.heads["transformer"].classifier.out_features) if is_t2t else ("fc", 1000)
        like = tensors["transformer.base.cls_token"]
        tensors[f"transformer.base.{name}.weight"] = like.new_zeros(classes, width)
        tensors[f"transformer.base.{name}.bias"] = like.new_zeros(classes)
    return tensors


def released_name(ours: str, units: Units) -> str:
    """The released code's name of the tensor that our state dict calls `ours`.

    Args:
        units: names of the units in an HTM, `units["mfu"]["cnn"] == "MUF_RES"`.
    """
    part, *rest = ours.split(".")
    if part == "branches":
        branch, tail = _BRANCH[rest[0]], ".".join(rest[1:])
        return f"{branch}.{ {'pool.exponent': 'gap.p', 'camera_embedding': 'base.sie_embed'}.get(tail, tail) }"
    if part == "heads":
        feature, layer, tail = rest
        layer = _HEAD_PART[layer]
        return f"{layer}_{_HEAD[feature]}.{tail}" if feature in _HEAD else f"{_BRANCH[feature]}.{layer}.{tail}"
    kind, *rest = rest
    if kind == "refine":
        branch, layer, tail = rest
        return f"{_LRU[branch]}.{_LRU_PART.get(layer, layer)}.{tail}"
    if kind == "pool":
        return _POOL[rest[0]]
    index, _, unit, _, branch, *tail = rest  # stack.0.steps.seu.unit.cnn.norm1.weight
    tail = ".".join(tail)
    for mine, theirs in _UNIT_PART:
        if tail.startswith(mine):
            tail = theirs + tail.removeprefix(mine)
    block = "" if tail.startswith("norm.") else "blocks.0."
    return f"HTM.blocks.{index}.{units[unit][branch]}.{block}{tail}"


def deduce(checkpoint: str | Path | Mapping) -> ModelConfig:
    """The configuration of a released checkpoint, as far as names and shapes tell; else as in `RELEASED`.

    Raises:
        ValueError: naming what is not known; then give `load` a configuration.
    """
    return _deduce(_tensors(checkpoint), describe(checkpoint))


def _deduce(tensors: Mapping[str, Tensor], where: str) -> ModelConfig:
    """A part is there if any of its tensors is, so that `_account` can name those of it that are missing."""
    cnn = _cnn(tensors, where) if _holds(tensors, "resnet.base.") else None
    transformer, size, stride = None, RELEASED.image_size, RELEASED.stride
    if _holds(tensors, "transformer.base."):
        transformer, size, stride = _transformer(tensors, where)
    if cnn is None and transformer is None:
        raise ValueError(
            f"{where}: holds nothing of resnet.base or transformer.base, but "
            f"{', '.join(list(tensors)[:5])}, ...: not a checkpoint of the released code"
        )
    fusion = _fusion(tensors, where) if _holds(tensors, *_LRU.values(), "HTM.") else None
    return replace(RELEASED, cnn=cnn, transformer=transformer, image_size=size, stride=stride, fusion=fusion)


def _tensors(checkpoint: str | Path | Mapping) -> dict[str, Tensor]:
    """Tensors without `module.`; a branch trained alone (`base.`) gets the name that it has beside the other one."""
    tensors = {re.sub(r"^(module\.)+", "", name): value for name, value in read_tensors(checkpoint).items()}
    if _holds(tensors, "base."):
        branch = "transformer" if _holds(tensors, "base.cls_token", "base.pos_embed") else "resnet"
        tensors = {f"{branch}.{name}": value for name, value in tensors.items()}
    return tensors


def _holds(tensors: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int, where: str) -> torch.Size:
    """The shape of a tensor that the configuration is deduced from."""
    if name not in tensors:
        raise ValueError(f"{where}: {name} is missing")
    shape = tensors[name].shape
    if len(shape) != dimensions:
        raise ValueError(f"{where}: {name}: expected {dimensions} dimensions, found the shape {tuple(shape)}")
    return shape


def _fusion(tensors: Mapping[str, Tensor], where: str) -> FusionConfig:
    units = _units(tensors, where)
    htms = [int(match[1]) for name in tensors if (match := re.match(r"HTM\.blocks\.(\d+)\.", name))]
    pointwise, depthwise = "res_LRU.ptconv.weight", "res_LRU.dwconv.weight"
    dim, kernel = _shape(tensors, pointwise, 4, where)[0], _shape(tensors, depthwise, 4, where)[-1]
    try:
        return replace(
            RELEASED.fusion,
            dim=dim,
            depth=1 + max(htms, default=0),
            units=tuple(units),
            kernel=kernel,
            pooling="gem" if any(name in tensors for name in _POOL.values()) else "gap",
            **{f"share_{unit}": len(set(names.values())) == 1 for unit, names in units.items()},
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}, by the shapes of {pointwise} and {depthwise}") from None


def _units(tensors: Mapping[str, Tensor], where: str) -> Units:
    """The units of the HTMs and their names, one name being a shared unit; a projection tells what a new name is."""
    known = {name: unit for (unit, _), names in _UNITS.items() for name in names.values()}
    found: dict[str, list[str]] = {"seu": [], "mfu": []}
    for name in tensors:
        match = re.match(r"HTM\.blocks\.\d+\.(\w+)\.(?:blocks\.0\.attn\.(qkv|q)\.weight$)?", name)
        unit = match and known.get(match[1], {"qkv": "seu", "q": "mfu"}.get(match[2]))
        if unit and match[1] not in found[unit]:
            found[unit].append(match[1])
    units = {}
    for unit, names in found.items():
        if len(names) == 1:
            units[unit] = dict.fromkeys(BRANCHES, names[0])
        elif names:
            units[unit] = _UNITS[unit, False]
            if set(names) != set(units[unit].values()):
                raise ValueError(
                    f"{where}: expected {' and '.join(units[unit].values())} in an HTM, found {', '.join(names)}"
                )
    return units


def _cnn(tensors: Mapping[str, Tensor], where: str) -> str:
    blocks = [
        len({name.split(".")[3] for name in tensors if name.startswith(f"resnet.base.layer{i}.")}) for i in range(1, 5)
    ]
    bottleneck = any(re.match(r"resnet\.base\.layer\d\.\d+\.conv3\.", name) for name in tensors)
    try:
        return _RESNETS[tuple(blocks)][bottleneck]
    except KeyError:
        raise ValueError(
            f"{where}: expected a ResNet-18, 34, 50, 101 or 152, found {blocks} blocks of "
            f"{3 if bottleneck else 2} convolutions; give a config"
        ) from None


def _transformer(tensors: Mapping[str, Tensor], where: str) -> tuple[str, tuple[int, int], int]:
    """Name, image size and stride: the first of the known sizes and strides whose grid has as many positions."""
    base = "transformer.base."
    _, positions, width = _shape(tensors, base + "pos_embed", 3, where)
    depth = len({name.split(".")[3] for name in tensors if name.startswith(base + "blocks.")})
    is_t2t = _holds(tensors, base + "tokens_to_token.")
    name = {(384, 14): "t2t_vit_14"}.get((width, depth)) if is_t2t else _VITS.get((width, depth))
    if name is None:
        raise ValueError(
            f"{where}: a {'T2T-ViT' if is_t2t else 'ViT'} of width {width} and depth {depth} is unknown; give a config"
        )
    for stride in STRIDES:
        for size in SIZES:
            rows, columns = soft_split_grids(size)[-1] if is_t2t else patch_grid(size, stride)
            if rows * columns == positions - 1:
                return name, size, RELEASED.stride if is_t2t else stride
    raise ValueError(
        f"{where}: transformer.base.pos_embed has {positions - 1} patches, which no stride of "
        f"{', '.join(map(str, STRIDES))} gives at 256 x 128 or 384 x 128; give a config"
    )


def _account(where: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], ignore: list[str]) -> None:
    """Every tensor that the model needs is there, sound, in its shape; every one that is there has its place."""
    problems = {
        "missing": [name for name in expected if name not in found],
        "unknown": [n for n in found if n not in expected and n not in ignore and not UNUSED.match(n)],
        "of another shape": [],
        "of another type": [],
        "not finite": [],
    }
    for name in [name for name in expected if name in found]:
        value, place = found[name], expected[name]
        if value.shape != place.shape:
            problems["of another shape"].append(f"{name}: expected {tuple(place.shape)}, found {tuple(value.shape)}")
        if place.is_floating_point() and not value.is_floating_point():
            problems["of another type"].append(f"{name}: expected floating point, found {value.dtype}")
        elif place.is_floating_point() and not value.float().isfinite().all():
            problems["not finite"].append(name)
    parts = [
        f"{len(names)} {what}: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
        for what, names in problems.items()
        if names
    ]
    if parts:
        raise ValueError(f"{where}: is damaged or does not fit the configuration; {'; '.join(parts)}")
