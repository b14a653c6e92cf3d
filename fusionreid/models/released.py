"""Loads checkpoints of the authors' released code.

Each of our tensors has a name there, `released_name`. The configuration is deduced from the names
and the shapes, as far as they tell. DeiT-B/16 and ViT-B/16 are one network with other weights: both
are deduced as ViT-B/16.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from ..config import RELEASED, FusionConfig, ModelConfig
from .backbones import T2T_VITS, patch_grid
from .checkpoints import fill
from .fusionreid import FusionReID, build_model
from .pretrained import Source, describe, read_tensors
from .t2t_vit import soft_split_grids

# Parts of our names, and what the released code has in their place, replaced in this order.
NAMES = {
    "branches.cnn.pool.exponent": "resnet.gap.p",
    "branches.cnn.": "resnet.",
    "branches.transformer.camera_embedding": "transformer.base.sie_embed",
    "branches.transformer.": "transformer.",
    "necks.cnn.norm.": "resnet.bottleneck.",
    "necks.cnn.classifier.": "resnet.classifier.",
    "necks.transformer.norm.": "transformer.bottleneck.",
    "necks.transformer.classifier.": "transformer.classifier.",
    "necks.cnn_refined.norm.": "bottleneck_1.",
    "necks.cnn_refined.classifier.": "classifier_1.",
    "necks.transformer_refined.norm.": "bottleneck_2.",
    "necks.transformer_refined.classifier.": "classifier_2.",
    "necks.cnn_fused.norm.": "bottleneck_3.",
    "necks.cnn_fused.classifier.": "classifier_3.",
    "necks.transformer_fused.norm.": "bottleneck_4.",
    "necks.transformer_fused.classifier.": "classifier_4.",
    "fusion.pool.cnn.exponent": "gap_r.p",
    "fusion.pool.transformer.exponent": "gap_f.p",
    "fusion.refine.cnn.": "res_LRU.",
    "fusion.refine.transformer.": "former_LRU.",
    "_LRU.depthwise.": "_LRU.dwconv.",
    "_LRU.norm1.": "_LRU.bn1.",
    "_LRU.pointwise.": "_LRU.ptconv.",
    "_LRU.norm2.": "_LRU.bn2.",
}
BLOCK_NAMES = {"attention.key_norm.": "attn.norm.", "attention.": "attn.", "ffn.": "mlp."}

# An HTM's blocks: the CNN's, the Transformer's, or in their place a shared one.
# "MFU" for a shared MFU is our choice: no published checkpoint has one.
BLOCKS = {"seu": ("SEU1", "SEU2", "SEU"), "mfu": ("MUF_RES", "MFU_FORMER", "MFU")}

# ImageNet's classifiers are in the checkpoints, but the released code never calls them.
UNUSED = re.compile(r"transformer\.base\.(fc|head)\.|resnet\.base\.fc\.")

# The networks, image sizes and strides that `deduce` knows, the usual ones first. A ViT is known by
# its width and depth.
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
VITS = {
    (768, 12): "vit_base_patch16_224",
    (384, 12): "vit_small_patch16_224",
    (192, 12): "vit_tiny_patch16_224",
    (384, 14): "t2t_vit_14",
}
SIZES = ((256, 128), (384, 128))
STRIDES = (12, 16, 14, 10, 8)

Tensors = Mapping[str, Tensor]


def load(checkpoint: Source, config: ModelConfig | None = None) -> FusionReID:
    """The model of a released checkpoint (a path, or a state dict), in evaluation mode.

    Without a configuration it is deduced. Give one if the units are in the reverse order, if there
    are other than 12 heads, or for branches that `deduce` does not know. Raises ValueError, naming
    the checkpoint and each tensor that is missing, unknown, of another shape or not finite.
    """
    tensors = _read(checkpoint)
    try:
        config = config or deduce(tensors)
    except ValueError as error:
        raise ValueError(f"{describe(checkpoint)}: {error}") from error
    classes = [len(value) for name, value in tensors.items() if "classifier" in name]
    cameras = tensors.get("transformer.base.sie_embed", ())
    with torch.device("meta"):  # random weights would only be overwritten
        model = build_model(config, max(classes, default=1), len(cameras))
    model.to_empty(device="cpu")
    places = {
        released_name(name, config.fusion): place for name, place in model.state_dict().items()
    }
    fill(describe(checkpoint), tensors, places)
    return model.eval()


def released_name(name: str, fusion: FusionConfig | None) -> str:
    """The released code's name of the tensor that we call `name`."""
    if not name.startswith("fusion.stack."):
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        return name
    _, _, layer, _, index, branch, inner = name.split(".", maxsplit=6)
    unit = fusion.units[int(index)]
    cnn, transformer, shared = BLOCKS[unit]
    if getattr(fusion, f"share_{unit}"):
        block = shared
    else:
        block = cnn if branch == "cnn" else transformer
    if not inner.startswith("norm."):  # SEU's last norm stands beside the block
        inner = f"blocks.0.{inner}"
    for ours, theirs in BLOCK_NAMES.items():
        inner = inner.replace(ours, theirs)
    return f"HTM.blocks.{layer}.{block}.{inner}"


def _read(checkpoint: Source) -> Tensors:
    """The tensors that are used, with SEU's q, k and v apart, which are one in the checkpoint."""
    tensors = read_tensors(checkpoint)
    if _has(tensors, "base."):
        # A branch that was trained alone: give its tensors the names that they have beside others.
        branch = "transformer" if _has(tensors, "base.cls_token") else "resnet"
        tensors = {f"{branch}.{name}": value for name, value in tensors.items()}
    used = {}
    for name, value in tensors.items():
        if name.startswith("HTM.") and ".qkv." in name:
            for part, projection in zip("qkv", value.chunk(3), strict=True):
                used[name.replace(".qkv.", f".{part}.")] = projection
        elif not UNUSED.match(name):
            used[name] = value
    return used


def _parts(tensors: Tensors, prefix: str) -> list[list[str]]:
    """The names that begin with `prefix`, cut at their dots."""
    return [name.split(".") for name in tensors if name.startswith(prefix)]


def _has(tensors: Tensors, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in tensors)


def deduce(tensors: Tensors) -> ModelConfig:
    """The configuration of a checkpoint; what its tensors do not tell is as in `RELEASED`.

    Raises ValueError, naming what is not known. Then give `load` a configuration.
    """
    fields = {"cnn": None, "transformer": None, "fusion": None}
    if _has(tensors, "resnet.base."):
        fields["cnn"] = _resnet(tensors)
    if _has(tensors, "transformer.base."):
        fields |= _transformer(tensors)
    if not fields["cnn"] and not fields["transformer"]:
        names = ", ".join(list(tensors)[:5])
        raise ValueError(
            f"not of the released code: no resnet.base or transformer.base among {names}, ..."
        )
    if _has(tensors, "res_LRU."):
        fields["fusion"] = _fusion(tensors)
    return replace(RELEASED, **fields)


def _shape(tensors: Tensors, name: str) -> torch.Size:
    if name not in tensors:
        raise ValueError(f"{name} is missing")
    return tensors[name].shape


def _resnet(tensors: Tensors) -> str:
    """The ResNet's name. Its number counts the layers: those of the blocks, and two more."""
    blocks = {(layer, block) for _, _, layer, block, *_ in _parts(tensors, "resnet.base.layer")}
    convolutions = 3 if any(".conv3." in name for name in tensors) else 2
    name = f"resnet{2 + convolutions * len(blocks)}"
    if name not in RESNETS:
        raise ValueError(f"expected one of {', '.join(RESNETS)}, found a {name}; give a config")
    return name


def _transformer(tensors: Tensors) -> dict:
    """The ViT's name, and the first image size and stride with as many patches as it has."""
    _, positions, width = _shape(tensors, "transformer.base.pos_embed")
    depth = len({block for _, _, _, block, *_ in _parts(tensors, "transformer.base.blocks.")})
    if (width, depth) not in VITS:
        raise ValueError(f"a ViT of width {width} and depth {depth} is unknown; give a config")
    name = VITS[width, depth]
    for stride, size in product(STRIDES, SIZES):
        grid = soft_split_grids(size)[-1] if name in T2T_VITS else patch_grid(size, stride)
        if 1 + grid[0] * grid[1] == positions:  # one is the class token's
            return {"transformer": name, "image_size": size, "stride": stride}
    raise ValueError(
        f"transformer.base.pos_embed: no known size and stride has {positions - 1} patches; "
        "give a config"
    )


def _fusion(tensors: Tensors) -> FusionConfig:
    htms = _parts(tensors, "HTM.blocks.")
    blocks = {block for _, _, _, block, *_ in htms}
    return replace(
        RELEASED.fusion,
        dim=_shape(tensors, "res_LRU.ptconv.weight")[0],
        depth=max(1, len({layer for _, _, layer, *_ in htms})),
        units=tuple(unit for unit, names in BLOCKS.items() if blocks & set(names)),
        share_seu="SEU1" not in blocks,
        share_mfu="MFU" in blocks,
        pooling="gem" if "gap_r.p" in tensors else "gap",
    )
