"""FusionReID (Fig. 2): two branches, their fusion, and up to six supervised features."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import FEATURES, ModelConfig
from ..options import expect, one_of
from .backbones import CNNBranch, TransformerBranch
from .fusion import DualAttentionMutualFusion


class Output(NamedTuple):
    """`features` by name, (B, width) each, in the order of `config.FEATURES`; `logits` (B, classes) when training."""

    features: dict[str, Tensor]
    logits: dict[str, Tensor] | None


class BNNeck(nn.Module):
    """Batch norm without a trained bias, then a linear classifier without bias (Luo et al.): (B, D) to logits."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> Tensor:
        return self.classifier(self.norm(feature))


class FusionReID(nn.Module):
    """The model of a `ModelConfig`; build it with `build_model`. `widths` has the width of each feature, in order."""

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        num_cameras: int = 0,
        pretrained: bool | Collection[str] = False,
    ):
        super().__init__()
        pretrained = ("cnn", "transformer") if pretrained is True else pretrained or ()
        for name in pretrained:
            one_of("pretrained", name, ("cnn", "transformer"))
        self.config, self.num_cameras = config, num_cameras
        self.branches = nn.ModuleDict()
        if config.cnn:
            self.branches["cnn"] = CNNBranch(config, "cnn" in pretrained)
        if config.transformer:
            self.branches["transformer"] = TransformerBranch(
                config, num_cameras, "transformer" in pretrained
            )
        widths = {name: branch.width for name, branch in self.branches.items()}
        fusion = config.fusion
        self.fusion = (
            DualAttentionMutualFusion(fusion, widths) if fusion and fusion.refine else None
        )
        if self.fusion is not None:
            stages = ("refined", "fused") if len(self.fusion.stack) else ("refined",)
            widths |= {
                f"{branch}_{stage}": fusion.dim for stage in stages for branch in self.branches
            }
        self.widths: dict[str, int] = {name: widths[name] for name in FEATURES if name in widths}
        self.necks = nn.ModuleDict(
            {name: BNNeck(width, num_classes) for name, width in self.widths.items()}
        )

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Height and width of each branch's local map."""
        return {name: branch.grid for name, branch in self.branches.items()}

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Output:
        """Images (B, 3, H, W), float, and cameras (B,), int64, both on the model's device, to `Output`.

        A camera of -1, or `cameras=None`, is one that training has not seen: no camera embedding is added. Raises
        ValueError, TypeError, naming the argument, what was expected and what was found.
        """
        self._check(images, cameras)
        branches = {name: branch(images, cameras) for name, branch in self.branches.items()}
        features = {name: output.token for name, output in branches.items()}
        if self.fusion is not None:
            refined, fused = self.fusion({name: output.local for name, output in branches.items()})
            features |= {f"{name}_refined": token for name, token in refined.items()}
            features |= {f"{name}_fused": token for name, token in fused.items()}
        features = {name: features[name] for name in self.widths}
        logits = (
            {name: self.necks[name](feature) for name, feature in features.items()}
            if self.training
            else None
        )
        return Output(features, logits)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """The retrieval vector f_a: all features side by side, (B, sum of `widths`), before normalisation."""
        return torch.cat(list(self(images, cameras).features.values()), dim=1)

    def _check(self, images: Tensor, cameras: Tensor | None) -> None:
        expected, found = (3, *self.config.image_size), tuple(images.shape)
        if len(found) != 4 or found[1:] != expected:
            raise ValueError(
                f"images: expected shape (batch, {', '.join(map(str, expected))}), found {found}"
            )
        if not images.is_floating_point():
            raise TypeError(
                f"images: expected floats (see fusionreid.data.normalise), found {images.dtype}"
            )
        if self.training and len(images) < 2:
            needs = "batch normalisation needs at least two images when training, found one"
            raise ValueError(f"images: {needs}; call model.eval() first to embed a single image")
        if cameras is None:
            return
        if cameras.dtype != torch.int64:
            raise TypeError(f"cameras: expected int64, found {cameras.dtype}")
        if cameras.shape != images.shape[:1] or cameras.device != images.device:
            expected = f"expected shape ({len(images)},) on {images.device}, as the images"
            raise ValueError(
                f"cameras: {expected}, found {tuple(cameras.shape)} on {cameras.device}"
            )
        # Only on the CPU: elsewhere it would wait for the device. A compiled graph would break, an exported one keep B.
        if (
            not torch.compiler.is_compiling()
            and self.num_cameras
            and len(cameras)
            and cameras.device.type == "cpu"
        ):
            low, high = int(cameras.min()), int(cameras.max())
            if low < -1 or high >= self.num_cameras:
                raise ValueError(
                    f"cameras: expected 0 to {self.num_cameras - 1} (-1: unseen), found {low} to {high}"
                )


def build_model(
    config: ModelConfig,
    num_classes: int,
    num_cameras: int = 0,
    pretrained: bool | Collection[str] = False,
) -> FusionReID:
    """FusionReID as configured, for as many identities (`num_classes`) and cameras as training has (0: no embedding).

    `pretrained` fetches ImageNet weights by timm, for both branches or for those named, ("cnn",) or ("transformer",);
    for weights in a file, see `fusionreid.models.pretrained`. Raises ValueError, naming the argument or the backbone.
    """
    expect("config", config, ModelConfig)
    num_classes, num_cameras = (
        expect("num_classes", num_classes, int, 1),
        expect("num_cameras", num_cameras, int, 0),
    )
    return FusionReID(config, num_classes, num_cameras, pretrained)
