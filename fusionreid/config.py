"""What can be configured: the model (Sec. III), the training (Sec. IV.B), the data and the profiles.

A configuration is frozen; an ablation is a `dataclasses.replace` of another one. `PAPER` computes what the
paper's text says and is the default; `RELEASED` computes what the authors' released code does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from . import paths
from .files import digest

FEATURES = ("cnn", "transformer", "cnn_refined", "transformer_refined", "cnn_fused", "transformer_fused")


def one_of(field_name: str, value, known) -> None:
    """Raises ValueError, naming the field and the known values, unless `value` is one of them."""
    if value not in known:
        raise ValueError(f"{field_name}={value!r} is not known; it is one of: {', '.join(map(repr, known))}")


@dataclass(frozen=True)
class FusionConfig:
    """The Dual-attention Mutual Fusion (DMF, Sec. III.B).

    Attributes:
        dim: D, the width that the Local Refinement Units (LRU) give both branches.
        depth: L, the number of stacked Heterogeneous Transmission Modules (HTM).
        refine: whether LRU is there. Without it nothing can be fused; `fusion=None` is the usual way to say so.
        units: the order of the units in an HTM (Fig. 4). `()` is LRU alone.
        share_seu, share_mfu: one unit for both branches of an HTM, or one for each (Table IV).
        pooling: how F_c and F_t become global tokens, "gem" or "gap" (Table V).
        heads: N_h, attention heads, the same at every D.
        kernel: the side of LRU's depth-wise kernel: 3 in the paper's text, 1 in the released code.
        seu_norm: a last LayerNorm after the SEU block, as in the released code.
        mfu_residual: "attention", M = MHCA(q, kv), f = FFN(M) + M (Eqs. 6 to 9), or "query", the released code's
            pre-norm block: q + MHCA(LN(q), kv), then + FFN(LN(.)), the keys, not the values, coming from LN(kv).
    """

    dim: int = 768
    depth: int = 2
    refine: bool = True
    units: tuple[str, ...] = ("seu", "mfu")
    share_seu: bool = True
    share_mfu: bool = False
    pooling: str = "gem"
    heads: int = 12
    kernel: int = 3
    seu_norm: bool = False
    mfu_residual: str = "attention"

    def __post_init__(self):
        object.__setattr__(self, "units", tuple(self.units))
        one_of("FusionConfig.units", self.units, [("seu", "mfu"), ("mfu", "seu"), ("seu",), ("mfu",), ()])
        one_of("FusionConfig.pooling", self.pooling, ["gem", "gap"])
        one_of("FusionConfig.kernel", self.kernel, [1, 3, 5, 7])
        one_of("FusionConfig.mfu_residual", self.mfu_residual, ["attention", "query"])
        if self.dim < 1 or self.heads < 1 or self.dim % self.heads:
            raise ValueError(f"FusionConfig.dim={self.dim} is not a multiple of heads={self.heads}")
        if self.depth < 1:
            raise ValueError(f"FusionConfig.depth={self.depth}; at least one HTM is needed (units=() is LRU alone)")
        if not self.refine and self.units:
            raise ValueError(
                f"FusionConfig.refine=False leaves units={self.units} without aligned features; use fusion=None"
            )


@dataclass(frozen=True)
class ModelConfig:
    """FusionReID, one of its parts, or one branch alone.

    Attributes:
        cnn, transformer: names of the branches: the paper's ("resnet50", "vit_base_patch16_224",
            "deit_base_patch16_224", "t2t_vit_14"), the demo's small ones, or any timm CNN or ViT; None leaves
            the branch out.
        image_size: height and width in pixels.
        stride: step of the ViT's 16 x 16 patches in pixels: 12 overlaps, 16 does not.
        fusion: the DMF; None is the Dual-branch Feature Extraction (DFE) alone.
        stem: the CNN's first layers: "imagenet" (ReLU after the first BN; 3 x 3 max pool) or "released" (neither).
        camera_scale: the factor of the camera embedding.
        drop_path: the highest stochastic-depth rate of the Transformer branch.
    """

    cnn: str | None = "resnet50"
    transformer: str | None = "vit_base_patch16_224"
    image_size: tuple[int, int] = (256, 128)
    stride: int = 12
    fusion: FusionConfig | None = field(default_factory=FusionConfig)
    stem: str = "imagenet"
    camera_scale: float = 3.0
    drop_path: float = 0.1

    def __post_init__(self):
        object.__setattr__(self, "image_size", tuple(self.image_size))
        one_of("ModelConfig.stem", self.stem, ["imagenet", "released"])
        if self.cnn is None and self.transformer is None:
            raise ValueError("ModelConfig: cnn and transformer are both None; a model has at least one branch")
        if len(self.image_size) != 2 or min(self.image_size) < 16:
            raise ValueError(
                f"ModelConfig.image_size={self.image_size}; expected (height, width), each at least 16 pixels"
            )
        if not 1 <= self.stride <= 16:
            raise ValueError(f"ModelConfig.stride={self.stride}; expected 1 to 16 pixels")
        if self.fusion is not None and (self.cnn is None or self.transformer is None):
            # One branch has nothing to fuse with: `ModelConfig(cnn=None)` is the Transformer alone.
            object.__setattr__(self, "fusion", None)


PAPER = ModelConfig()
RELEASED = replace(
    PAPER, stem="released", fusion=FusionConfig(share_seu=False, kernel=1, seu_norm=True, mfu_residual="query")
)


RENDERER = 3  # version of the synthetic people: raised whenever the same seed gives other pictures


@dataclass(frozen=True)
class DataConfig:
    """Which images. `size` and `seed` are the synthetic set's; where the files lie does not belong to a run."""

    name: str = "synthetic"
    size: str = "demo"
    seed: int = 0

    def __post_init__(self):
        one_of("DataConfig.name", self.name, ["market1501", "dukemtmc", "msmt17", "synthetic"])
        one_of("DataConfig.size", self.size, ["smoke", "demo", "full"])


@dataclass(frozen=True)
class TrainConfig:
    """Training (Sec. IV.B). The defaults are the paper's.

    Attributes:
        optimizer: "sgd", the paper's, or "adamw", by which a Transformer learns from random weights too.
        epochs: passes over the training identities, warm-up included.
        warmup_epochs: linear growth from `learning_rate_start` to `learning_rate`, before the cosine decay to
            `learning_rate_end`.
        schedule: "paper", or "released" (the released code's curve: see `train.learning_rate`).
        momentum: of SGD; AdamW's first beta.
        bias_learning_rate: the factor on the learning rate of biases (the released code: 2).
        identities, images: P and K; a batch is P x K images.
        label_smoothing: of the cross entropy.
        triplet_distance: "euclidean", or "squared" as Eq. 11 is printed.
        flip, padding, erasing: probability of a horizontal flip, pixels padded before the random crop, probability
            of a random erasing.
        precision: "float32", "bf16" or "fp16" autocast.
        evaluate_every: epochs between two evaluations; the last epoch is always evaluated.
    """

    optimizer: str = "sgd"
    epochs: int = 180
    warmup_epochs: int = 10
    schedule: str = "paper"
    learning_rate_start: float = 5e-4
    learning_rate: float = 5e-3
    learning_rate_end: float = 0.0
    bias_learning_rate: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    identities: int = 8
    images: int = 16
    label_smoothing: float = 0.1
    triplet_distance: str = "euclidean"
    flip: float = 0.5
    padding: int = 10
    erasing: float = 0.5
    precision: str = "float32"
    evaluate_every: int = 30

    def __post_init__(self):
        one_of("TrainConfig.optimizer", self.optimizer, ["sgd", "adamw"])
        one_of("TrainConfig.schedule", self.schedule, ["paper", "released"])
        one_of("TrainConfig.triplet_distance", self.triplet_distance, ["euclidean", "squared"])
        one_of("TrainConfig.precision", self.precision, ["float32", "bf16", "fp16"])
        if self.identities < 2 or self.images < 2:
            raise ValueError(
                f"TrainConfig: identities={self.identities} x images={self.images}; hard mining needs at least 2 x 2"
            )
        if self.evaluate_every < 1:
            raise ValueError(f"TrainConfig.evaluate_every={self.evaluate_every}; expected 1 epoch or more")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"TrainConfig.warmup_epochs={self.warmup_epochs}; expected 0 to epochs={self.epochs} less 1"
            )


PAPER_TRAINING = TrainConfig()
RELEASED_TRAINING = replace(
    PAPER_TRAINING, schedule="released", learning_rate_start=5e-5, learning_rate_end=1e-5, bias_learning_rate=2.0
)


# Which of timm's ImageNet weights are fetched: those that re-identification starts from by custom, torchvision's first
# ResNets and the original ViT. timm's own defaults are trained by newer recipes and fine-tune to other numbers.
IMAGENET = {
    "resnet50": "tv_in1k",
    "resnet101": "tv_in1k",
    "resnet152": "tv_in1k",
    "vit_base_patch16_224": "orig_in21k_ft_in1k",
    "deit_base_patch16_224": "fb_in1k",
}


@dataclass(frozen=True)
class RunConfig:
    """All that the numbers of one run depend on, device and versions aside.

    Attributes:
        cnn_weights, transformer_weights: what the branches start from: "random", "imagenet" (fetched by timm), or
            the path of a file (see `fusionreid.pretrained`).
    """

    model: ModelConfig = PAPER
    data: DataConfig = DataConfig()
    train: TrainConfig = PAPER_TRAINING
    seed: int = 0
    cnn_weights: str = "random"
    transformer_weights: str = "random"

    def describe(self) -> dict:
        """As plain data: a file of weights by its name and digest, as it may lie elsewhere tomorrow; timm's weights by
        their tag; and the version of the synthetic people."""
        weights = {
            "cnn_weights": _describe_weights(self.cnn_weights, self.model.cnn),
            "transformer_weights": _describe_weights(self.transformer_weights, self.model.transformer),
        }
        renderer = {"renderer": RENDERER} if self.data.name == "synthetic" else {}
        return asdict(self) | weights | renderer

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that name the run's folder."""
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _describe_weights(source: str, backbone: str | None) -> str:
    if source == "imagenet" and backbone in IMAGENET:
        return f"imagenet:{IMAGENET[backbone]}"
    if source in ("random", "imagenet"):
        return source
    if not Path(source).is_file():
        raise FileNotFoundError(f"weights {source!r}: expected 'random', 'imagenet' or a file, found no such file")
    status = os.stat(source)
    return f"{Path(source).name}:{digest(str(source), status.st_size, status.st_mtime_ns)}"


@dataclass(frozen=True)
class Profile:
    """One scale of the whole reproduction (smoke, demo, paper): every variant of every table, made smaller alike.

    Attributes:
        sizes: the image size that stands for the paper's 256 x 128 and 384 x 128.
        backbones: the branch that stands for each of the paper's.
        dim_divisor: the fused dimension D is divided by it.
        weights: what branches start from, unless a file is given: "random" or "imagenet".
    """

    name: str
    data: DataConfig
    train: TrainConfig
    sizes: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    backbones: dict[str, str] = field(default_factory=dict)
    dim_divisor: int = 1
    weights: str = "random"

    def scale(self, config: ModelConfig) -> ModelConfig:
        """The configuration at this profile's scale; `config` is one at the paper's."""
        fusion = config.fusion and replace(config.fusion, dim=config.fusion.dim // self.dim_divisor)
        return replace(
            config,
            cnn=self.backbones.get(config.cnn, config.cnn),
            transformer=self.backbones.get(config.transformer, config.transformer),
            image_size=self.sizes.get(config.image_size, config.image_size),
            fusion=fusion,
        )

    def run(
        self,
        config: ModelConfig = PAPER,
        *,
        seed: int = 0,
        data: DataConfig | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> RunConfig:
        """The run of a paper-scale configuration in this profile.

        Args:
            weights: what to start from, by the name of the backbone: {"resnet50": "r50.pth"}. By default
                `self.weights`; where that is "imagenet", a file `data/weights/<backbone>.pth` (or .safetensors, .pt)
                goes before what timm would fetch.
        """
        sources = {"cnn_weights": config.cnn, "transformer_weights": config.transformer}
        chosen = {key: (weights or {}).get(name) or self._weights_of(name) for key, name in sources.items() if name}
        return RunConfig(model=self.scale(config), data=data or self.data, train=self.train, seed=seed, **chosen)

    def _weights_of(self, backbone: str) -> str:
        if self.weights != "imagenet":
            return self.weights
        files = (paths.DATA / "weights" / f"{backbone}{suffix}" for suffix in (".safetensors", ".pth", ".pt"))
        return next((str(file) for file in files if file.is_file()), self.weights)


# DeiT-B/16 is ViT-B/16 with other pre-trained weights; from scratch they would be one network, so the small
# stand-ins differ in depth (see backbones.SMALL).
_SMALL = {
    "resnet50": "test_resnet_small",
    "resnet101": "test_resnet_deep",
    "resnet152": "test_resnet_deeper",
    "vit_base_patch16_224": "test_vit",
    "deit_base_patch16_224": "test_deit",
    "t2t_vit_14": "test_t2t_vit",
}

PROFILES = {
    "smoke": Profile(
        name="smoke",
        data=DataConfig(size="smoke"),
        train=TrainConfig(
            epochs=2, warmup_epochs=1, learning_rate=2e-2, identities=4, images=4, padding=4, evaluate_every=1
        ),
        sizes={(256, 128): (64, 32), (384, 128): (96, 32)},
        backbones=_SMALL,
        dim_divisor=16,
    ),
    "demo": Profile(
        name="demo",
        data=DataConfig(size="demo"),
        train=TrainConfig(
            optimizer="adamw",
            epochs=8,
            warmup_epochs=2,
            learning_rate_start=3e-4,
            learning_rate=3e-3,
            weight_decay=0.05,
            identities=8,
            images=4,
            padding=5,
            evaluate_every=2,
        ),
        sizes={(256, 128): (128, 64), (384, 128): (192, 64)},
        backbones=_SMALL,
        dim_divisor=8,
    ),
    "paper": Profile(
        name="paper", data=DataConfig(name="market1501", size="full"), train=PAPER_TRAINING, weights="imagenet"
    ),
}


def profile(of: str | Profile) -> Profile:
    """The profile of a name, over which `FUSIONREID_PROFILE` in the environment wins; a `Profile` is itself."""
    return of if isinstance(of, Profile) else named_profile(os.environ.get("FUSIONREID_PROFILE") or of)


def named_profile(name: str | None) -> Profile:
    """The profile of exactly this name ("smoke", "demo", "paper"); None: that of the environment, else the demo."""
    name = name or os.environ.get("FUSIONREID_PROFILE") or "demo"
    one_of("profile", name, list(PROFILES))
    return PROFILES[name]
