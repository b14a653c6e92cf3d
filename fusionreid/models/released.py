"""Checkpoints of the authors' released code, loaded here and written back.

Each of our tensors has one name there, `released_name`. The configuration is deduced from names and shapes, as far as
they tell. DeiT-B/16 and ViT-B/16 are one network with other weights: both are deduced as ViT-B/16.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from io import BytesIO
from itertools import product
from pathlib import Path
from statistics import mode

import safetensors.torch
import torch
from torch import Tensor

from ..config import FEATURES, RELEASED, FusionConfig, ModelConfig
from ..files import atomic_write
from .backbones import patch_grid
from .fusionreid import FusionReID, build_model
from .pretrained import Source, describe, read_tensors
from .t2t_vit import soft_split_grids

# What makes the released code's name of ours, one pattern after the other; the names of the units follow.
_NAMES = {
    r"^branches\.cnn\.pool\.exponent$": "resnet.gap.p",
    r"^branches\.transformer\.camera_embedding$": "transformer.base.sie_embed",
    r"^necks\.(\w+)\.norm\.": r"necks.\1.bottleneck.",
    r"^(branches|necks)\.cnn\.": "resnet.",
    r"^(branches|necks)\.transformer\.": "transformer.",
    **{
        rf"^necks\.{name}\.(\w+)": rf"\1_{number}"
        for number, name in enumerate(FEATURES[2:], start=1)
    },
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
_VITS = {
    (768, 12): "vit_base_patch16_224",
    (384, 12): "vit_small_patch16_224",
    (192, 12): "vit_tiny_patch16_224",
}
_VITS[384, 14] = "t2t_vit_14"
_SIZES, _STRIDES = ((256, 128), (384, 128)), (12, 16, 14, 10, 8)


def load(checkpoint: Source, config: ModelConfig | None = None) -> FusionReID:
    """The model of a released checkpoint (a path, or a state dict in any wrapper), in evaluation mode.

    Without a configuration it is deduced. Give `replace(deduce(checkpoint), ...)` for units in the reverse order, heads
    other than 12, or branches that `deduce` does not know. Raises ValueError, naming the checkpoint and each tensor
    that is missing, unknown, of another shape, or damaged.
    """
    return _read(checkpoint, lambda tensors: _load(tensors, config or _deduce(tensors)))


def deduce(checkpoint: Source) -> ModelConfig:
    """The configuration of a released checkpoint, as far as names and shapes tell; else as in `RELEASED`.

    Raises ValueError, naming what is not known; then give `load` a configuration.
    """
    return _read(checkpoint, _deduce)


def save(model: FusionReID, path: str | Path) -> None:
    """Writes what `export` gives: safetensors if the path ends so, else by `torch.save`."""
    tensors = {name: value.cpu().contiguous() for name, value in export(model).items()}
    content = BytesIO()  # to a file, torch.save does not say that the disk is full
    if Path(path).suffix == ".safetensors":
        content.write(safetensors.torch.save(tensors))
    else:
        torch.save(tensors, content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content.getvalue())


def export(model: FusionReID) -> dict[str, Tensor]:
    """The model's tensors by the released code's names; ImageNet's classifiers, which it never calls, are zeros.

    Raises ValueError, naming the field in which the model computes what the released code cannot.
    """
    config = model.config
    for field in ("stem", "kernel", "seu_norm", "mfu_residual"):
        ours, theirs = (
            (config.cnn and config, RELEASED)
            if field == "stem"
            else (config.fusion, RELEASED.fusion)
        )
        if ours and getattr(ours, field) != getattr(theirs, field):
            found, expected = getattr(ours, field), getattr(theirs, field)
            raise ValueError(
                f"{field}={found!r}: the released code has only {expected!r}, and would compute otherwise"
            )
    tensors = _merged(model, found={})
    if config.transformer:
        cls = tensors["transformer.base.cls_token"]
        is_t2t = _holds(tensors, "transformer.base.tokens_to_token.")
        head, classes = (
            ("head", len(tensors["transformer.classifier.weight"])) if is_t2t else ("fc", 1000)
        )
        tensors[f"transformer.base.{head}.weight"] = cls.new_zeros(classes, cls.shape[-1])
        tensors[f"transformer.base.{head}.bias"] = cls.new_zeros(classes)
    return tensors


def released_name(ours: str, units: Units) -> str:
    """The released code's name of the tensor that our state dict calls `ours`; SEU's q, k and v are one there."""
    order = list(units)
    ours = re.sub(r"\.units\.(\d)\.", lambda index: f".{order[int(index[1])]}.", ours)
    for pattern, name in _NAMES.items():
        ours = re.sub(pattern, name, ours)
    for unit, (cnn, transformer) in units.items():
        ours = ours.replace(f".{unit}.cnn.", f".{cnn}.").replace(
            f".{unit}.transformer.", f".{transformer}."
        )
    return ours


def _read(checkpoint: Source, work: Callable):
    """The result of `work` on a checkpoint's tensors; a ValueError names the checkpoint."""
    tensors = read_tensors(checkpoint)
    if _holds(
        tensors, "base."
    ):  # a branch trained alone: its tensors get the names that they have beside the other's
        branch = "transformer" if _holds(tensors, "base.cls_token", "base.pos_embed") else "resnet"
        tensors = {f"{branch}.{name}": value for name, value in tensors.items()}
    try:
        return work(tensors)
    except ValueError as error:
        raise ValueError(f"{describe(checkpoint)}: {error}") from error


def _places(model: FusionReID, found: Units) -> dict[str, list[Tensor]]:
    """The model's tensors, each once, by their released names: one a name, or SEU's q, k and v."""
    fusion, units, places = model.config.fusion, {}, {}
    for unit in fusion.units if fusion else ():
        # A shared unit is called as in the checkpoint.
        units[unit] = (
            found.get(unit, _SHARED[unit]) if getattr(fusion, f"share_{unit}") else _OWN[unit]
        )
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        places.setdefault(released_name(name, units), []).append(value.detach())
    return places


def _merged(model: FusionReID, found: Units) -> dict[str, Tensor]:
    return {name: torch.cat(p) if len(p) > 1 else p[0] for name, p in _places(model, found).items()}


def _load(tensors: Mapping[str, Tensor], config: ModelConfig) -> FusionReID:
    classes = [
        len(value) for name, value in tensors.items() if "classifier" in name and value.ndim == 2
    ]
    embedding, units = "transformer.base.sie_embed", _units(tensors)
    cameras = _shape(tensors, embedding, 3)[0] if embedding in tensors and config.transformer else 0
    with torch.device("meta"):  # no time spent on random weights
        model = build_model(
            config, mode(classes or [1]), cameras
        )  # one damaged classifier is outvoted
    _account(tensors, _merged(model, units))
    model.to_empty(device="cpu")
    for name, places in _places(model, units).items():
        for place, value in zip(
            places, tensors[name].chunk(3) if len(places) > 1 else [tensors[name]], strict=True
        ):
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
            problems[name] = (
                f"of another shape: expected {tuple(place.shape)}, found {tuple(value.shape)}"
            )
        elif place.is_floating_point() > value.is_floating_point():
            problems[name] = f"of another type: expected floating point, found {value.dtype}"
        elif not value.isfinite().all():
            problems[name] = "not finite"
    unused = re.compile(
        r"(transformer\.base\.(fc|head)|resnet\.base\.fc)\."
    )  # ImageNet's classifiers, never called
    problems |= {
        name: "unknown" for name in found if name not in expected and not unused.match(name)
    }
    if problems:
        first = "; ".join(f"{name} is {problem}" for name, problem in list(problems.items())[:20])
        raise ValueError(
            f"does not fit the configuration, or is damaged in {len(problems)} of its tensors: {first}"
        )


def _holds(tensors: Mapping[str, Tensor], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)


def _shape(tensors: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor that the configuration is deduced from."""
    found = tuple(tensors[name].shape) if name in tensors else "nothing"
    if len(found) != dimensions:
        raise ValueError(f"{name}: expected {dimensions} dimensions, found {found}")
    return found


def _deduce(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """A part is there if any of its tensors is, so that `_account` can name those of it that are missing."""
    fields = {"cnn": None, "transformer": None, "fusion": None}
    if not _holds(tensors, "resnet.base.", "transformer.base."):
        raise ValueError(
            f"not of the released code: no resnet.base or transformer.base among {list(tensors)[:5]}, ..."
        )
    if _holds(tensors, "resnet.base."):
        blocks = {
            tuple(name.split(".")[2:4]) for name in tensors if name.startswith("resnet.base.layer")
        }
        convolutions = 3 if any(".conv3." in name for name in tensors) else 2
        fields["cnn"] = (
            f"resnet{2 + len(blocks) * convolutions}"  # called by the number of its layers
        )
        if fields["cnn"] not in _RESNETS:
            raise ValueError(
                f"expected one of {', '.join(_RESNETS)}, found a {fields['cnn']}; give a config"
            )
    if _holds(tensors, "transformer.base."):
        fields |= _transformer(tensors)
    if _holds(tensors, "res_LRU.", "former_LRU.", "HTM."):
        fields["fusion"] = _fusion(tensors)
    return replace(RELEASED, **fields)


def _transformer(tensors: Mapping[str, Tensor]) -> dict:
    """Name, image size and stride: the first of the known sizes and strides whose grid has as many positions."""
    _, positions, width = _shape(tensors, "transformer.base.pos_embed", 3)
    depth = len(
        {name.split(".")[3] for name in tensors if name.startswith("transformer.base.blocks.")}
    )
    if (width, depth) not in _VITS:
        raise ValueError(
            f"a Transformer of width {width} and depth {depth} is unknown; give a config"
        )
    is_t2t = _holds(tensors, "transformer.base.tokens_to_token.")
    for stride, size in product(_STRIDES, _SIZES):
        rows, columns = soft_split_grids(size)[-1] if is_t2t else patch_grid(size, stride)
        if rows * columns == positions - 1:
            return {"transformer": _VITS[width, depth], "image_size": size, "stride": stride}
    raise ValueError(
        f"transformer.base.pos_embed: no known size and stride has {positions - 1} patches; give a config"
    )


def _units(tensors: Mapping[str, Tensor]) -> Units:
    """The units that the checkpoint's HTMs hold: a branch's own, or one by another name for both."""
    units: Units = {}
    for name in tensors:
        if match := re.match(r"HTM\.blocks\.\d+\.(\w+)\.", name):
            unit = "seu" if match[1].startswith("SEU") else "mfu"
            units.setdefault(unit, _OWN[unit] if match[1] in _OWN[unit] else (match[1], match[1]))
    return units


def _fusion(tensors: Mapping[str, Tensor]) -> FusionConfig:
    units, dim = _units(tensors), _shape(tensors, "res_LRU.ptconv.weight", 4)[0]
    if dim % RELEASED.fusion.heads:
        raise ValueError(
            f"res_LRU.ptconv.weight: expected rows for {RELEASED.fusion.heads} heads, found {dim}"
        )
    htms = [int(name.split(".")[2]) for name in tensors if name.startswith("HTM.blocks.")]
    order = tuple(unit for unit in _OWN if unit in units)
    pooling = "gem" if _holds(tensors, "gap_r.p", "gap_f.p") else "gap"
    shared = {f"share_{unit}": names[0] == names[1] for unit, names in units.items()}
    return replace(
        RELEASED.fusion,
        dim=dim,
        depth=max(htms, default=0) + 1,
        units=order,
        pooling=pooling,
        **shared,
    )
