"""Each table and curve of the paper (Sec. IV) as a list of named variants, and the runs they need.

A variant is a `dataclasses.replace` of the full model. A profile makes it smaller. A variant that
several tables hold has one fingerprint, and is trained once, by `fusionreid.jobs`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .. import paths
from ..config import PAPER, STAND_IN_NAMES, DataConfig, ModelConfig, Profile, one_of
from ..config import profile as find_profile
from ..data.datasets import find_version
from ..training.runs import RunConfig, make_run, with_versions
from . import numbers as paper

EXPERIMENTS = paper.TABLES
DEPTHS = (1, 2, 3, 4, 5, 6)
DIMENSIONS = (384, 576, 768, 1152, 1536)
CNNS = {"ResNet50": "resnet50", "ResNet101": "resnet101", "ResNet152": "resnet152"}
TRANSFORMERS = {
    "T2T-ViT-14": "t2t_vit_14",
    "ViT-B/16*": "vit_base_patch16_224",
    "DeiT-B/16*": "deit_base_patch16_224",
}
BACKBONES = CNNS | TRANSFORMERS


@dataclass(frozen=True)
class Variant:
    """A row of a table, or a point of a curve, at the paper's scale."""

    # As in the table. As in Table I, * is for overlapping patches, and an arrow for 384 x 128.
    name: str
    config: ModelConfig
    # By the paper, of all its features on MSMT17: see `numbers.reported`.
    reported: dict[str, float] = field(default_factory=dict, hash=False)


def _fused(**changes) -> ModelConfig:
    return replace(PAPER, fusion=replace(PAPER.fusion, **changes))


def _backbones() -> dict[str, ModelConfig]:
    """The rows of Table VI: each backbone alone, then each pair."""
    rows = {}
    for name, cnn in CNNS.items():
        rows[name] = replace(PAPER, cnn=cnn, transformer=None)
    for name, transformer in TRANSFORMERS.items():
        rows[name] = replace(PAPER, cnn=None, transformer=transformer)
    for cnn_name, cnn in CNNS.items():
        for name, transformer in TRANSFORMERS.items():
            rows[f"{cnn_name} + {name}"] = replace(PAPER, cnn=cnn, transformer=transformer)
    return rows


CONFIGURATIONS = {
    "table1": {
        "FusionReID*": PAPER,
        "FusionReID": replace(PAPER, stride=16),
        "FusionReID* ↑": replace(PAPER, image_size=(384, 128)),
        "FusionReID ↑": replace(PAPER, image_size=(384, 128), stride=16),
    },
    "table2": {
        "ResNet50": replace(PAPER, transformer=None),
        "ViT-B/16*": replace(PAPER, cnn=None),
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
    # No table of the paper: what its text and its released code do differently, one at a time.
    "differences": {
        "PAPER": PAPER,
        "MFU as printed": _fused(mfu_residual="attention"),
        "LRU kernel 1 x 1": _fused(kernel=1),
        "released stem": replace(PAPER, stem="released"),
        "SEU with a last LayerNorm": _fused(seu_norm=True),
        "one SEU for each branch": _fused(share_seu=False),
    },
}

# Of these the notebooks train some rows only, as the others cost more than all else together.
_OWN_ROWS = {
    "table1": ["FusionReID*", "FusionReID"],
    "table4": ["SEU shared, MFU unshared", "SEU unshared, MFU unshared"],
    "table6": ["ResNet50", "ViT-B/16*", "ResNet50 + ViT-B/16*"],
    "figure5": ["L = 1", "L = 2", "L = 3"],
    "figure6": ["D = 384", "D = 768", "D = 1152"],
    "differences": ["PAPER", "MFU as printed", "one SEU for each branch"],
}


def changes(config: ModelConfig) -> str:
    """The fields that differ from PAPER's: "share_seu=False, share_mfu=True"; "" for PAPER."""
    default = asdict(PAPER) | asdict(PAPER.fusion)
    fields = asdict(config)
    if config.fusion:
        fields |= fields.pop("fusion")
    elif config.cnn is None or config.transformer is None:
        del fields["fusion"]  # goes without saying: one branch has nothing to fuse with
    changed = [f"{name}={value}" for name, value in fields.items() if value != default[name]]
    return ", ".join(changed)


def variants(name: str) -> list[Variant]:
    """The variants of an experiment, in the paper's order.

    Raises ValueError, naming the known experiments, for another name.
    """
    one_of("experiment", name, CONFIGURATIONS)
    reported = paper.reported(name)
    return [
        Variant(variant, config, reported.get(variant, {}))
        for variant, config in CONFIGURATIONS[name].items()
    ]


def own_rows(name: str, every: bool = False) -> list[str]:
    """The variants of an experiment that its notebook trains: some, or every one."""
    rows = [variant.name for variant in variants(name)]
    return rows if every else _OWN_ROWS.get(name, rows)


def label(name: str, profile: Profile) -> str:
    """The name of a row, with what stands for its backbones: "ResNet50 (ours: small CNN)"."""
    stand_ins = []
    for part in name.split(" + "):
        backbone = profile.backbones.get(BACKBONES.get(part))
        stand_ins.append(STAND_IN_NAMES.get(backbone))
    return name if None in stand_ins else f"{name} (ours: {' + '.join(stand_ins)})"


@dataclass(frozen=True)
class Setting:
    """What experiments are run with, and where their data and runs lie; `setting` makes one."""

    profile: Profile
    data: DataConfig
    seeds: tuple[int, ...]
    data_root: Path
    runs_root: Path

    def run(self, config: ModelConfig, seed: int) -> RunConfig:
        """The run of a configuration, given at the paper's scale."""
        run = make_run(self.profile, config, seed=seed, data=self.data)
        return with_versions(run, self.data_root)


def setting(
    profile: str | Profile,
    dataset: str | DataConfig | None = None,
    seeds: Sequence[int] = (0,),
    runs_root: str | Path | None = None,
    data_root: str | Path | None = None,
) -> Setting:
    """What tables, claims and curves are made from. Looks up the version of the data.

    `dataset` is by default the profile's.
    """
    profile = find_profile(profile)
    if isinstance(dataset, str):
        dataset = replace(profile.data, name=dataset, version="")
    data = dataset or profile.data
    data_root = Path(data_root or paths.DATA)
    if not data.version:
        data = replace(data, version=find_version(data, data_root))
    return Setting(
        profile, data, tuple(dict.fromkeys(seeds)), data_root, Path(runs_root or paths.RUNS)
    )


def names_of(names: str | Sequence[str]) -> Sequence[str]:
    """The names of experiments, given as one or as several, each once."""
    return [names] if isinstance(names, str) else list(dict.fromkeys(names))


def plan(
    names: str | Sequence[str], setting: Setting, rows: Sequence[str] | None = None
) -> dict[str, RunConfig]:
    """The runs that experiments need, each once; of the variants `rows`, by default of all.

    Returns each run by the names of the variants that it is, and its seed. Raises ValueError for
    an unknown experiment or row.
    """
    needed = [(name, variant) for name in names_of(names) for variant in variants(name)]
    for row in rows or ():
        one_of("row", row, [variant.name for _, variant in needed])
    labels: dict[RunConfig, list[str]] = {}
    for name, variant in needed:
        if rows and variant.name not in rows:
            continue
        for seed in setting.seeds:
            run = setting.run(variant.config, seed)
            labels.setdefault(run, []).append(f"{name}: {variant.name}")
    return {f"{', also '.join(names)} (seed {run.seed})": run for run, names in labels.items()}
