"""Each table and curve of the paper (Sec. IV) as a list of named variants, and the runs that they need.

A variant is a `dataclasses.replace` of the full model. A profile makes it smaller. Variants that several tables hold
have one fingerprint and are trained once, by `fusionreid.jobs`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from .. import paths
from ..config import PAPER, DataConfig, ModelConfig, Profile, one_of
from ..config import profile as find_profile
from ..training.runs import RunConfig, find_version, make_run, with_versions
from . import numbers as paper

EXPERIMENTS = paper.TABLES
DEPTHS = (1, 2, 3, 4, 5, 6)
DIMENSIONS = (
    384,
    576,
    768,
    1152,
    1536,
)  # multiples of 12 heads x 16, the largest divisor of a profile
BACKBONES = {
    "ResNet50": "resnet50", "ResNet101": "resnet101", "ResNet152": "resnet152",
    "T2T-ViT-14": "t2t_vit_14", "ViT-B/16*": "vit_base_patch16_224", "DeiT-B/16*": "deit_base_patch16_224",
}  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A row of a table, or a point of a curve, at the paper's scale."""

    name: (
        str  # as in the table; * is for overlapping patches, an arrow for 384 x 128, as in Table I
    )
    config: ModelConfig


def _fused(**changes) -> ModelConfig:
    return replace(PAPER, fusion=replace(PAPER.fusion, **changes))


def _backbones() -> dict[str, ModelConfig]:
    cnns, transformers = list(BACKBONES)[:3], list(BACKBONES)[3:]
    pairs = [*product(cnns, [None]), *product([None], transformers), *product(cnns, transformers)]
    return {
        " + ".join(filter(None, pair)): replace(
            PAPER, cnn=BACKBONES.get(pair[0]), transformer=BACKBONES.get(pair[1])
        )
        for pair in pairs
    }


_CONFIGURATIONS = {
    "table1": {
        "FusionReID*": PAPER,
        "FusionReID": replace(PAPER, stride=16),
        "FusionReID* ↑": replace(PAPER, image_size=(384, 128)),
        "FusionReID ↑": replace(PAPER, image_size=(384, 128), stride=16),
    },
    "table2": {
        "ResNet50": replace(PAPER, transformer=None, fusion=None),
        "ViT-B/16*": replace(PAPER, cnn=None, fusion=None),
        "DFE": replace(PAPER, fusion=None),
        "DFE + LRU": _fused(units=()),
        "DFE + LRU + SEU": _fused(units=("seu",)),
        "DFE + LRU + MFU": _fused(units=("mfu",)),
        "FusionReID*": PAPER,
    },
    "table3": {
        "SEU, MFU": PAPER,
        "SEU only": _fused(units=("seu",)),
        "MFU, SEU": _fused(units=("mfu", "seu")),
        "MFU only": _fused(units=("mfu",)),
    },
    "table4": {
        "SEU shared, MFU shared": _fused(share_mfu=True),
        "SEU shared, MFU unshared": PAPER,
        "SEU unshared, MFU shared": _fused(share_seu=False, share_mfu=True),
        "SEU unshared, MFU unshared": _fused(share_seu=False),
    },
    "table5": {"GeM": PAPER, "GAP": _fused(pooling="gap")},
    "table6": _backbones(),
    "figure5": {f"L = {depth}": _fused(depth=depth) for depth in DEPTHS},
    "figure6": {f"D = {dim}": _fused(dim=dim) for dim in DIMENSIONS},
    # No table of the paper: what its text and its released code do differently, one difference at a time.
    "differences": {
        "PAPER": PAPER,
        "MFU as printed": _fused(mfu_residual="attention"),
        "LRU kernel 1 x 1": _fused(kernel=1),
        "released stem": replace(PAPER, stem="released"),
        "SEU with a last LayerNorm": _fused(seu_norm=True),
        "one SEU for each branch": _fused(share_seu=False),
    },
}


def changes(config: ModelConfig) -> str:
    """The fields that differ from PAPER's: "share_seu=False, share_mfu=True"; "" for PAPER.

    That a branch alone has no fusion is not said.
    """
    own, default = asdict(config), asdict(PAPER) | asdict(PAPER.fusion)
    if config.fusion or None in (config.cnn, config.transformer):
        own |= own.pop("fusion") or {}
    return ", ".join(f"{name}={value}" for name, value in own.items() if value != default[name])


def variants(name: str) -> list[Variant]:
    """The variants of an experiment in the paper's order; a ValueError names the experiments that are known."""
    one_of("experiment", name, _CONFIGURATIONS)
    return [Variant(variant, config) for variant, config in _CONFIGURATIONS[name].items()]


@dataclass(frozen=True)
class Setting:
    """What experiments are run with, and where their runs lie; `setting` makes one."""

    profile: Profile
    data: DataConfig
    seeds: tuple[int, ...] = (0,)
    runs_root: Path = paths.RUNS

    def run(self, config: ModelConfig, seed: int) -> RunConfig:
        """The run of a configuration at the paper's scale."""
        return with_versions(make_run(self.profile, config, seed=seed, data=self.data))


def setting(
    profile: str | Profile,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Setting:
    """What tables, claims and curves are made from; the version of the data is looked up under `data_root`."""
    profile = find_profile(profile)
    if isinstance(dataset, str):
        dataset = replace(profile.data, name=dataset, version="")
    data = find_version(dataset or profile.data, data_root, runs_root)
    return Setting(profile, data, tuple(seeds), Path(runs_root or paths.RUNS))


def plan(
    names: str | Sequence[str], setting: Setting, rows: Sequence[str] | None = None
) -> dict[str, RunConfig]:
    """The runs that experiments need, each once: {the names of the variants that it is, and its seed: the run}."""
    needed = [
        (name, each)
        for name in ([names] if isinstance(names, str) else names)
        for each in variants(name)
    ]
    for row in rows or ():
        one_of("row", row, [variant.name for _, variant in needed])
    found: dict[str, tuple[list[str], RunConfig]] = {}
    for name, variant in needed:
        for seed in setting.seeds if not rows or variant.name in rows else ():
            run = setting.run(variant.config, seed)
            found.setdefault(run.fingerprint, ([], run))[0].append(f"{name}: {variant.name}")
    return {f"{', also '.join(labels)} (seed {run.seed})": run for labels, run in found.values()}
