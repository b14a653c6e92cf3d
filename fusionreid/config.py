"""What can be configured: the model (Sec. III), the training (Sec. IV.B), the data, the profiles.

A configuration is frozen; an ablation is a `dataclasses.replace` of another one. Nothing here
reads a file or the environment. `PAPER` is the default. `RELEASED` computes what the authors'
released code computes.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .options import expect, expect_fields, one_of

# The six features in the paper's order, their names in tables, and their symbols (TeX).
FEATURES = (
    "cnn",
    "transformer",
    "cnn_refined",
    "transformer_refined",
    "cnn_fused",
    "transformer_fused",
)
LABELS = {
    "cnn": "CNN",
    "transformer": "Transformer",
    "cnn_refined": "CNN refined",
    "transformer_refined": "Transformer refined",
    "cnn_fused": "CNN fused",
    "transformer_fused": "Transformer fused",
    "all": "all six",
}
SYMBOLS = {
    "cnn": r"\hat{f}_c",
    "transformer": r"\hat{f}_t",
    "cnn_refined": r"f'_{c,0}",
    "transformer_refined": r"f'_{t,0}",
    "cnn_fused": r"f'_{c,L}",
    "transformer_fused": r"f'_{t,L}",
    "all": "f_a",
}
PRECISIONS = ("float32", "bf16", "fp16")
SIZES = ("smoke", "demo", "pretrain", "full")  # of a data set


class _Names(dict):
    """The sets that are known and how tables call them; a set of one's own has its own name."""

    def __missing__(self, name: str) -> str:
        return name


DATASETS = _Names(
    market1501="Market1501", dukemtmc="DukeMTMC", msmt17="MSMT17", synthetic="synthetic"
)


@dataclass(frozen=True)
class FusionConfig:
    """The Dual-attention Mutual Fusion (DMF, Sec. III.B).

    Attributes:
        dim: D, the width that the Local Refinement Units (LRU) give both branches.
        depth: L, the number of stacked Heterogeneous Transmission Modules (HTM).
        refine: whether LRU is there. Without it nothing can be fused, as with `fusion=None`.
        units: the order of the units in an HTM (Fig. 4). `()` is LRU alone.
        share_seu, share_mfu: one unit for both branches of an HTM, or one for each (Table IV).
        pooling: how F_c and F_t become global tokens, "gem" or "gap" (Table V).
        heads: N_h, attention heads, 12 at every D in the paper; a profile with `head_width` keeps
            their width in its place.
        kernel: the side of LRU's depth-wise kernel: 3 in the paper's text, 1 in the released code.
        seu_norm: a last LayerNorm after the SEU block, as in the released code.
        mfu_residual: "query" keeps the query: q = q + MHCA(LN(q), kv), f = q + FFN(LN(q)), where
            the keys, but not the values, come from LN(kv). "attention" is Eqs. 6 to 9 as printed:
            M = MHCA(q, kv), f = FFN(M) + M.
    """

    dim: int = 768
    depth: int = 2
    refine: bool = True
    units: tuple[str, ...] = ("seu", "mfu")
    share_seu: bool = True
    share_mfu: bool = False
    pooling: Literal["gem", "gap"] = "gem"
    heads: int = 12
    kernel: Literal[1, 3, 5, 7] = 3
    seu_norm: bool = False
    mfu_residual: Literal["query", "attention"] = "query"

    def __post_init__(self):
        expect_fields(self, dim=(1,), depth=(1,), heads=(1,))
        one_of(
            "FusionConfig.units",
            self.units,
            [("seu", "mfu"), ("mfu", "seu"), ("seu",), ("mfu",), ()],
        )
        if self.dim % self.heads:
            raise ValueError(f"FusionConfig.dim={self.dim} is not a multiple of heads={self.heads}")
        if not self.refine and self.units:
            raise ValueError(
                f"FusionConfig.refine=False leaves units={self.units} nothing to fuse; "
                "use fusion=None"
            )


@dataclass(frozen=True)
class ModelConfig:
    """FusionReID, one of its parts, or one branch alone.

    Attributes:
        cnn, transformer: the paper's backbones (`paper.experiments.BACKBONES`), the demo's small
            ones, or any CNN or ViT of timm. None leaves the branch out.
        image_size: height and width in pixels.
        stride: step of the ViT's 16 x 16 patches in pixels: 12 overlaps, 16 does not.
        fusion: the DMF; None is the Dual-branch Feature Extraction (DFE) alone.
        stem: the CNN's first layers. "imagenet" has a ReLU after the first BN, and a 3 x 3 max
            pool; "released" has no ReLU, and a 2 x 2 max pool.
        camera_scale: the factor of the camera embedding.
        drop_path: the highest stochastic-depth rate of the Transformer branch.
    """

    cnn: str | None = "resnet50"
    transformer: str | None = "vit_base_patch16_224"
    image_size: tuple[int, int] = (256, 128)
    stride: int = 12
    fusion: FusionConfig | None = field(default_factory=FusionConfig)
    stem: Literal["imagenet", "released"] = "imagenet"
    camera_scale: float = 3.0
    drop_path: float = 0.1

    def __post_init__(self):
        expect_fields(self, stride=(1, 16), drop_path=(0, 1))
        if not self.cnn and not self.transformer:
            raise ValueError(
                "ModelConfig: cnn and transformer are both None; a model has at least one branch"
            )
        if len(self.image_size) != 2 or min(self.image_size) < 16:
            raise ValueError(
                f"ModelConfig.image_size={self.image_size}; expected height, width, from 16 pixels"
            )
        if not self.cnn or not self.transformer:
            # One branch has nothing to fuse with: `ModelConfig(cnn=None)` is the Transformer alone.
            object.__setattr__(self, "fusion", None)


PAPER = ModelConfig()
RELEASED = replace(PAPER, stem="released", fusion=FusionConfig(kernel=1, seu_norm=True))


@dataclass(frozen=True)
class DataConfig:
    """Which images. Where their files lie does not belong to a run.

    Attributes:
        name: one of `DATASETS`, or the name of a set of one's own (`data.layouts.find_own`).
        size, seed: which synthetic set, or which draw of a real one ("demo" is a draw, every other
            size is the whole set; see `data.datasets.draw_people`). A set of one's own is whole.
        version: of the files, as `data.datasets.find_version` finds it; "" is not looked up yet.
    """

    name: str = "synthetic"
    size: str = "demo"
    seed: int = 0
    version: str = ""

    def __post_init__(self):
        expect_fields(self)
        one_of("DataConfig.size", self.size, SIZES)
        if self.name not in DATASETS:
            if not self.name or Path(self.name).name != self.name:
                raise ValueError(
                    f"DataConfig.name={self.name!r}; expected one of {', '.join(DATASETS)}, or the "
                    "name of a set of one's own, without its folder"
                )
            object.__setattr__(self, "name", self.name.removesuffix(".csv"))
            object.__setattr__(self, "size", "full")
        if self.name != "synthetic" and self.size != "demo":  # a whole set has no draws
            object.__setattr__(self, "seed", 0)


@dataclass(frozen=True)
class TrainConfig:
    """Training (Sec. IV.B). The defaults are the paper's.

    Attributes:
        optimizer: "sgd", the paper's, or "adamw".
        epochs: passes over the training identities, warm-up included.
        warmup_epochs: epochs of linear growth to `learning_rate`. A cosine decay to
            `learning_rate_end` follows.
        schedule: "paper", or "released" for the released code's curve (see `train.learning_rate`).
        momentum: of SGD; AdamW's first beta.
        bias_learning_rate: the factor on the learning rate of biases (the released code: 2).
        identities, images: P and K; a batch is P x K images. Hard mining needs at least 2 x 2.
        triplet_distance: "euclidean", or "squared" as Eq. 11 is printed.
        flip, erasing: probabilities of a horizontal flip and of a random erasing.
        padding: pixels around the image before the random crop.
        precision: "float32", "bf16" or "fp16" autocast.
        evaluate_every: epochs between two evaluations; the last epoch is always evaluated.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    epochs: int = 180
    warmup_epochs: int = 10
    schedule: Literal["paper", "released"] = "paper"
    learning_rate_start: float = 5e-4
    learning_rate: float = 5e-3
    learning_rate_end: float = 0.0
    bias_learning_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    identities: int = 8
    images: int = 16
    label_smoothing: float = 0.1
    triplet_distance: Literal["euclidean", "squared"] = "euclidean"
    flip: float = 0.5
    padding: int = 10
    erasing: float = 0.5
    precision: str = "float32"
    evaluate_every: int = 30

    def __post_init__(self):
        share = (0, 1)
        expect_fields(
            self,
            identities=(2,),
            images=(2,),
            evaluate_every=(1,),
            momentum=share,
            label_smoothing=share,
            flip=share,
            erasing=share,
        )
        one_of("TrainConfig.precision", self.precision, PRECISIONS)
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"TrainConfig.warmup_epochs={self.warmup_epochs}; expected at least 0 "
                f"and fewer than epochs={self.epochs}"
            )


PAPER_TRAINING = TrainConfig()
RELEASED_RECIPE = {
    "schedule": "released",
    "learning_rate_start": 5e-5,
    "learning_rate_end": 1e-5,
    "bias_learning_rate": 2.0,
    "precision": "fp16",
}
RELEASED_TRAINING = replace(PAPER_TRAINING, **RELEASED_RECIPE)


@dataclass(frozen=True)
class Profile:
    """One scale of the whole reproduction, as smoke, demo or paper. It scales every variant alike.

    Attributes:
        sizes: the image size that stands for the paper's 256 x 128 and 384 x 128.
        backbones: the branch that stands for each of the paper's.
        dim_divisor: the fused dimension D is divided by it.
        head_width: the width of an attention head of the fusion, at every D. None keeps the number
            of heads of the configuration instead.
        start: what branches start from, unless a file is given: "random", "imagenet", or
            "pretrained", our own weights of the stand-ins (`fusionreid/weights/`).
    """

    name: str
    data: DataConfig
    train: TrainConfig
    sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    backbones: dict[str, str] = field(default_factory=dict)
    dim_divisor: int = 1
    head_width: int | None = None
    start: str = "random"

    def scale(self, config: ModelConfig) -> ModelConfig:
        """The configuration at this profile's scale; `config` is one at the paper's scale."""
        expect("config", config, ModelConfig)
        fusion = config.fusion
        if fusion is not None:
            dim = fusion.dim // self.dim_divisor
            heads = dim // self.head_width if self.head_width else fusion.heads
            fusion = replace(fusion, dim=dim, heads=heads)
        return replace(
            config,
            cnn=self.backbones.get(config.cnn, config.cnn),
            transformer=self.backbones.get(config.transformer, config.transformer),
            image_size=self.sizes.get(config.image_size, config.image_size),
            fusion=fusion,
        )


# DeiT-B/16 is ViT-B/16 with other pre-trained weights, and so are their stand-ins (`pretrain`).
STAND_INS = {
    "resnet50": "test_resnet_small",
    "resnet101": "test_resnet_deep",
    "resnet152": "test_resnet_deeper",
    "vit_base_patch16_224": "test_vit_small",
    "deit_base_patch16_224": "test_deit_small",
    "t2t_vit_14": "test_t2t_vit",
}
STAND_IN_NAMES = {
    "test_resnet_small": "small CNN",
    "test_resnet_deep": "deep CNN",
    "test_resnet_deeper": "deeper CNN",
    "test_vit_small": "small Transformer",
    "test_deit_small": "small DeiT",
    "test_t2t_vit": "small T2T-ViT",
}

PROFILES = {
    "smoke": Profile(
        name="smoke",
        data=DataConfig(size="smoke"),
        train=TrainConfig(
            epochs=2,
            warmup_epochs=1,
            learning_rate=2e-2,
            identities=4,
            images=4,
            padding=4,
            evaluate_every=1,
        ),
        sizes={(256, 128): (64, 32), (384, 128): (96, 32)},
        backbones=STAND_INS,
        dim_divisor=16,
        head_width=8,
    ),
    "demo": Profile(
        name="demo",
        data=DataConfig(size="demo"),
        train=TrainConfig(
            epochs=12,
            warmup_epochs=1,
            learning_rate_start=1e-3,
            learning_rate=1e-2,
            images=4,
            padding=5,
            evaluate_every=5,
        ),
        sizes={(256, 128): (128, 64), (384, 128): (192, 64)},
        backbones=STAND_INS,
        dim_divisor=8,
        head_width=8,
        start="pretrained",
    ),
    "paper": Profile(
        name="paper",
        data=DataConfig(name="market1501", size="full"),
        train=PAPER_TRAINING,
        start="imagenet",
    ),
}
PROFILES["paper-bf16"] = replace(
    PROFILES["paper"], name="paper-bf16", train=replace(PAPER_TRAINING, precision="bf16")
)


def profile(of: str | Profile) -> Profile:
    """The profile of a name. A `Profile` is returned as it is."""
    if isinstance(of, Profile):
        return of
    one_of("profile", of, PROFILES)
    return PROFILES[of]
