"""Checkpoints of the authors' released code, loaded here and written back.

Each of our tensors has one name there, `released_name`. The configuration is deduced from names and shapes
(`deduce`); the order of the units in an HTM and the number of heads leave no trace and are given. DeiT-B/16 and
ViT-B/16 are one network with other weights: both are deduced as ViT-B/16.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..config import FEATURES, RELEASED, FusionConfig, ModelConfig
from ..files import atomic_write
from .backbones import patch_grid
from .fusionreid import FusionReID, build_model
from .pretrained import Source, describe, read_tensors
from .t2t_vit import soft_split_grids

# Classifiers of ImageNet that the released code keeps and never calls.
UNUSED = re.compile(r"^(transformer\.base\.(fc|head)|resnet\.base\.fc)\.(weight|bias)$")

# What makes the released code's name of ours, one pattern after the other; the names of the units follow.
_NAMES = {
    r"^branches\.cnn\.pool\.exponent$": "resnet.gap.p",
    r"^branches\.transformer\.camera_embedding$": "transformer.base.sie_embed",
    r"^necks\.(\w+)\.norm\.": r"necks.\1.bottleneck.",
    r"^(branches|necks)\.cnn\.": "resnet.",
    r"^(branches|necks)\.transformer\.": "transformer.",
    **{rf"^necks\.{name}\.(\w+)": rf"\1_{number}" for number, name in enumerate(FEATURES[2:], start=1)},
    r"^fusion\.pool\.cnn\.exponent$": "gap_r.p",
    r"^fusion\.pool\.transformer\.exponent$": "gap_f.p",
    r"^fusion\.refine\.cnn\.": "res_LRU.",
    r"^fusion\.refine\.transformer\.": "former_LRU.",
    r"_LRU\.depthwise\.": "_LRU.dwconv.",
    r"_LRU\.pointwise\.": "_LRU.ptconv.",
    r"_LRU\.norm(\d)\.": r"_LRU.bn\1.",
    r"^fusion\.stack\.(\d+\.seu\.\w+)\.norm\.": r"HTM.blocks.\1.norm.",
    r"^fusion\.stack\.(\d+\.\w+\.\w+)\.": r"HTM.blocks.\1.blocks.0.",
    r"\.attention\.key_norm\.": ".attn.norm.",
    r"\.attention\.": ".attn.",
    r"\.ffn\.": ".mlp.",
    r"(\.seu\..*\.attn)\.[qkv]\.": r"\1.qkv.",
}

# The CNN's and the Transformer's unit in an HTM. "MFU" for a shared one is our choice: no published checkpoint has one.
Units = dict[str, tuple[str, str]]
_OWN: Units = {"seu": ("SEU1", "SEU2"), "mfu": ("MUF_RES", "MFU_FORMER")}
_SHARED: Units = {"seu": ("SEU", "SEU"), "mfu": ("MFU", "MFU")}

# What `deduce` knows: ResNets, ViTs by width and depth, image sizes and strides, the usual ones first.
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
_VITS = {(768, 12): "vit_base_patch16_224", (384, 12): "vit_small_patch16_224", (192, 12): "vit_tiny_patch16_224"}
_VITS[384, 14] = "t2t_vit_14"
_SIZES, _STRIDES = ((256, 128), (384, 128)), (12, 16, 14, 10, 8)


def load(checkpoint: Source, config: ModelConfig | None = None) -> FusionReID:
    """The model of a released checkpoint (a path, or a state dict in any wrapper), in evaluation mode.

    Without a configuration it is deduced. Give `replace(deduce(checkpoint), ...)` for units in the reverse order, heads
    other than 12, or branches that `deduce` does not know.

    Raises:
        ValueError: naming the checkpoint and each tensor that is missing, unknown, of another shape or type, or holds
            numbers that are not finite.
    """
    return _read(checkpoint, lambda tensors: _load(tensors, config or _deduce(tensors)))


def deduce(checkpoint: Source) -> ModelConfig:
    """The configuration of a released checkpoint, as far as names and shapes tell; else as in `RELEASED`.

    Raises:
        ValueError: naming what is not known; then give `load` a configuration.
    """
    return _read(checkpoint, _deduce)


def save(model: FusionReID, path: str | Path) -> None:
    """Writes what `export` gives: safetensors if the path ends so, else by `torch.save`."""
    tensors = {name: value.cpu().contiguous() for name, value in export(model).items()}
    write = safetensors.torch.save_file if Path(path).suffix == ".safetensors" else torch.save
    with atomic_write(path) as temporary:
        write(tensors, temporary)


def export(model: FusionReID) -> dict[str, Tensor]:
    """The model's tensors by the released code's names; ImageNet's classifiers, which it never calls, are zeros.

    Raises:
        ValueError: naming the field in which the model computes what the released code cannot.
    """
    config = model.config
    for field in ("stem", "kernel", "seu_norm", "mfu_residual"):
        ours, theirs = (config.cnn and config, RELEASED) if field == "stem" else (config.fusion, RELEASED.fusion)
        if ours and getattr(ours, field) != getattr(theirs, field):
            found, expected = getattr(ours, field), getattr(theirs, field)
            raise ValueError(f"{field}={found!r}: the released code has only {expected!r}, and would compute otherwise")
    tensors = _merged(model, _units(config))
    if config.transformer:
        cls = tensors["transformer.base.cls_token"]
        is_t2t = _holds(tensors, "transformer.base.tokens_to_token.")
        head, classes = ("head", len(tensors["transformer.classifier.weight"])) if is_t2t else ("fc", 1000)
        tensors[f"transformer.base.{head}.weight"] = cls.new_zeros(classes, cls.shape[-1])
        tensors[f"transformer.base.{head}.bias"] = cls.new_zeros(classes)
    return tensors


def released_name(ours: str, units: Units) -> str:
    """The released code's name of the tensor that our state dict calls `ours`; SEU's q, k and v are one there."""
    for pattern, name in _NAMES.items():
        ours = re.sub(pattern, name, ours)
    for unit, (cnn, transformer) in units.items():
        ours = ours.replace(f".{unit}.cnn.", f".{cnn}.").replace(f".{unit}.transformer.", f".{transformer}.")
    return ours


def _read(checkpoint: Source, work: Callable[[dict[str, Tensor]], Any]) -> Any:
    """The result of `work` on a checkpoint's tensors; a ValueError names the checkpoint.

    A branch trained alone (`base.`) gets the name that it has beside the other one.
    """
    tensors = read_tensors(checkpoint)
    if _holds(tensors, "base."):
        branch = "transformer" if _holds(tensors, "base.cls_token", "base.pos_embed") else "resnet"
        tensors = {f"{branch}.{name}": value for name, value in tensors.items()}
    try:
        return work(tensors)
    except ValueError as error:
        raise ValueError(f"{describe(checkpoint)}: {error}") from error


def _units(config: ModelConfig) -> Units:
    units = config.fusion.units if config.fusion else ()
    return {unit: (_SHARED if getattr(config.fusion, f"share_{unit}") else _OWN)[unit] for unit in units}


def _places(model: FusionReID, units: Units) -> dict[str, list[Tensor]]:
    """The model's parameters and buffers, each once, by their released names: one a name, or SEU's q, k and v."""
    places: dict[str, list[Tensor]] = {}
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        places.setdefault(released_name(name, units), []).append(value.detach())
    return places


def _merged(model: FusionReID, units: Units) -> dict[str, Tensor]:
    return {name: torch.cat(p) if len(p) > 1 else p[0] for name, p in _places(model, units).items()}


def _load(tensors: Mapping[str, Tensor], config: ModelConfig) -> FusionReID:
    units, found = _units(config), _units_of(tensors)
    for unit in units.keys() & found.keys():
        shared, names = len(set(units[unit])) == 1, sorted(set(found[unit]))
        if shared != (len(names) == 1):
            raise ValueError(f"FusionConfig.share_{unit}={shared}, but an HTM holds {' and '.join(names)}")
    rows = Counter(len(value) for name, value in tensors.items() if "classifier" in name and value.ndim == 2)
    if not rows:
        raise ValueError("holds no classifier, which tells the number of identities")
    embedding = "transformer.base.sie_embed"
    cameras = _shape(tensors, embedding, 3)[0] if embedding in tensors and config.transformer else 0
    with torch.device("meta"):  # no time spent on random weights; one damaged classifier is outvoted
        model = build_model(config, rows.most_common(1)[0][0], cameras)
    _account(tensors, _merged(model, units | found))
    model.to_empty(device="cpu")
    for name, places in _places(model, units | found).items():
        for place, value in zip(places, tensors[name].chunk(3) if len(places) > 1 else [tensors[name]], strict=True):
            place.copy_(value)
    return model.eval()


def _account(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Every tensor that the model needs is there, sound and in its shape, and each that is there has its place."""
    problems = {}
    for name, place in expected.items():
        value = found.get(name)
        if value is None:
            problems[name] = "missing"
        elif value.shape != place.shape:
            problems[name] = f"of another shape: expected {tuple(place.shape)}, found {tuple(value.shape)}"
        elif place.is_floating_point() and not value.is_floating_point():
            problems[name] = f"of another type: expected floating point, found {value.dtype}"
        elif not value.isfinite().all():
            problems[name] = "not finite"
    problems |= {name: "unknown" for name in found if name not in expected and not UNUSED.match(name)}
    if problems:
        first = "; ".join(f"{name} is {problem}" for name, problem in list(problems.items())[:20])
        raise ValueError(f"does not fit the configuration, or is damaged in {len(problems)} tensors: {first}")


def _holds(tensors: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the configuration is deduced from."""
    found = tuple(tensors[name].shape) if name in tensors else None
    if found is None or len(found) != dimensions:
        raise ValueError(f"{name}: expected {dimensions} dimensions, found {found or 'none: it is missing'}")
    return found


def _deduce(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """A part is there if any of its tensors is, so that `_account` can name those of it that are missing."""
    if not _holds(tensors, "resnet.base.", "transformer.base."):
        names = ", ".join(list(tensors)[:5])
        raise ValueError(f"not a checkpoint of the released code: no resnet.base or transformer.base, but {names}, ...")
    cnn = _cnn(tensors) if _holds(tensors, "resnet.base.") else None
    transformer = _transformer(tensors) if _holds(tensors, "transformer.base.") else {"transformer": None}
    fusion = _fusion(tensors) if _holds(tensors, "res_LRU.", "former_LRU.", "HTM.") else None
    return replace(RELEASED, cnn=cnn, fusion=fusion, **transformer)


def _cnn(tensors: Mapping[str, Tensor]) -> str:
    """A ResNet is called by its layers: the first, those of its blocks, and ImageNet's classifier."""
    names = [name for name in tensors if name.startswith("resnet.base.layer")]
    blocks = len({tuple(name.split(".")[2:4]) for name in names})
    name = f"resnet{2 + blocks * (3 if any('.conv3.' in name for name in names) else 2)}"
    if name not in _RESNETS:
        raise ValueError(f"expected one of {', '.join(_RESNETS)}, found the {blocks} blocks of a {name}; give a config")
    return name


def _transformer(tensors: Mapping[str, Tensor]) -> dict:
    """Name, image size and stride: the first of the known sizes and strides whose grid has as many positions."""
    _, positions, width = _shape(tensors, "transformer.base.pos_embed", 3)
    depth = len({name.split(".")[3] for name in tensors if name.startswith("transformer.base.blocks.")})
    if (width, depth) not in _VITS:
        raise ValueError(f"a Transformer of width {width} and depth {depth} is unknown; give a config")
    is_t2t = _holds(tensors, "transformer.base.tokens_to_token.")
    for stride, size in product(_STRIDES, _SIZES):
        rows, columns = soft_split_grids(size)[-1] if is_t2t else patch_grid(size, stride)
        if rows * columns == positions - 1:
            return {"transformer": _VITS[width, depth], "image_size": size, "stride": stride}
    known = f"none of the strides {_STRIDES} gives at the sizes {_SIZES}"
    raise ValueError(f"transformer.base.pos_embed has {positions - 1} patches, which {known}; give a config")


def _units_of(tensors: Mapping[str, Tensor]) -> Units:
    """The units that the checkpoint's HTMs hold: a branch's own, or one by another name for both."""
    units: Units = {}
    for name in tensors:
        if match := re.match(r"HTM\.blocks\.\d+\.(\w+)\.", name):
            unit = "seu" if match[1].startswith("SEU") else "mfu"
            units.setdefault(unit, _OWN[unit] if match[1] in _OWN[unit] else (match[1], match[1]))
    return units


def _fusion(tensors: Mapping[str, Tensor]) -> FusionConfig:
    units, dim = _units_of(tensors), _shape(tensors, "res_LRU.ptconv.weight", 4)[0]
    if dim % RELEASED.fusion.heads:
        raise ValueError(f"res_LRU.ptconv.weight: expected rows for {RELEASED.fusion.heads} heads, found {dim}")
    return replace(
        RELEASED.fusion,
        dim=dim,
        depth=max((int(name.split(".")[2]) + 1 for name in tensors if name.startswith("HTM.blocks.")), default=1),
        units=tuple(unit for unit in _OWN if unit in units),
        pooling="gem" if _holds(tensors, "gap_r.p", "gap_f.p") else "gap",
        **{f"share_{unit}": len(set(names)) == 1 for unit, names in units.items()},
    )
