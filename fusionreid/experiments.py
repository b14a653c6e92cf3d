"""Each table and curve of the paper (Sec. IV) as a list of named variants; run what is missing, load what is there.

    python -m fusionreid.experiments table4 --profile demo --seeds 0 1 2 --processes 2

A variant is a `dataclasses.replace` of the full model at the paper's scale; a profile makes it smaller. Variants that
several tables hold have one fingerprint and are trained once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from . import paper
from .config import PAPER, ModelConfig, one_of

EXPERIMENTS = paper.TABLES
DEPTHS = (1, 2, 3, 4, 5, 6)
# Multiples of 12 heads x 16, so that every profile's divisor leaves a multiple of 12.
DIMENSIONS = (384, 576, 768, 1152, 1536)
BACKBONES = {
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "T2T-ViT-14": "t2t_vit_14",
    "ViT-B/16*": "vit_base_patch16_224",
    "DeiT-B/16*": "deit_base_patch16_224",
}
_CNNS, _TRANSFORMERS = list(BACKBONES)[:3], list(BACKBONES)[3:]


@dataclass(frozen=True)
class Variant:
    """A row of a table, or a point of a curve.

    Attributes:
        name: as in the table; * is for overlapping patches, an arrow for 384 x 128, as in Table I.
        config: the model at the paper's scale; `config.profile(...).run(variant.config)` is the run.
        reported: what the paper prints (see `paper.reported` for the keys), in percent, millions and giga.
        note: what is to be said of those numbers; starts with "misprint" where one of them is.
    """

    name: str
    config: ModelConfig
    reported: dict[str, float] = field(default_factory=dict, hash=False)
    note: str = ""


def _fused(**changes) -> ModelConfig:
    return replace(PAPER, fusion=replace(PAPER.fusion, **changes))


def _configurations(name: str) -> dict[str, ModelConfig]:
    """{variant: model at the paper's scale} of one experiment."""
    if name == "table1":
        return {
            "FusionReID*": PAPER,
            "FusionReID": replace(PAPER, stride=16),
            "FusionReID* ↑": replace(PAPER, image_size=(384, 128)),
            "FusionReID ↑": replace(PAPER, image_size=(384, 128), stride=16),
        }
    if name == "table2":
        return {
            "ResNet50": replace(PAPER, transformer=None, fusion=None),
            "ViT-B/16*": replace(PAPER, cnn=None, fusion=None),
            "DFE": replace(PAPER, fusion=None),
            "DFE + LRU": _fused(units=()),
            "DFE + LRU + SEU": _fused(units=("seu",)),
            "DFE + LRU + MFU": _fused(units=("mfu",)),
            "FusionReID*": PAPER,
        }
    if name == "table3":
        return {
            "SEU, MFU": PAPER,
            "SEU only": _fused(units=("seu",)),
            "MFU, SEU": _fused(units=("mfu", "seu")),
            "MFU only": _fused(units=("mfu",)),
        }
    if name == "table4":
        words = {True: "shared", False: "unshared"}
        return {
            f"SEU {words[seu]}, MFU {words[mfu]}": _fused(share_seu=seu, share_mfu=mfu)
            for seu in (True, False)
            for mfu in (True, False)
        }
    if name == "table5":
        return {"GeM": PAPER, "GAP": _fused(pooling="gap")}
    if name == "table6":
        singles = {cnn: replace(PAPER, cnn=BACKBONES[cnn], transformer=None, fusion=None) for cnn in _CNNS}
        singles |= {vit: replace(PAPER, cnn=None, transformer=BACKBONES[vit], fusion=None) for vit in _TRANSFORMERS}
        pairs = {
            f"{cnn} + {vit}": replace(PAPER, cnn=BACKBONES[cnn], transformer=BACKBONES[vit])
            for cnn in _CNNS
            for vit in _TRANSFORMERS
        }
        return singles | pairs
    if name == "figure5":
        return {f"L = {depth}": _fused(depth=depth) for depth in DEPTHS}
    return {f"D = {dim}": _fused(dim=dim) for dim in DIMENSIONS}


def variants(name: str) -> list[Variant]:
    """The variants of one table or figure, in the paper's order, with what the paper reports of each.

    Args:
        name: "table1" to "table6", "figure5" or "figure6".

    Raises:
        ValueError: the name is not known.
    """
    one_of("experiment", name, EXPERIMENTS)
    reported, notes = paper.reported(name), paper.notes(name)
    return [
        Variant(variant, config, reported.get(variant, {}), notes.get(variant, ""))
        for variant, config in _configurations(name).items()
    ]
