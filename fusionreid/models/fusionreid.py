"""FusionReID (Fig. 2): two branches, their fusion, and up to six supervised features."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import FEATURES, ModelConfig
from .backbones import CNNBranch, TransformerBranch
from .fusion import CrossAttention, DualAttentionMutualFusion


class Output(NamedTuple):
    """`features` by name, (B, width) each, in the order of `config.FEATURES`; `logits` (B, classes) when training."""

    features: dict[str, Tensor]
    logits: dict[str, Tensor] | None


class Head(nn.Module):
    """BNNeck (Luo et al.): batch norm without a trained bias, then a linear classifier without bias."""

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.neck = nn.BatchNorm1d(width)
        self.neck.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> Tensor:
        return self.classifier(self.neck(feature))


class FusionReID(nn.Module):
    """The model of a `ModelConfig`; build it with `build_model`.

    Attributes:
        widths: width of each feature, in order.
        grids: height and width of each branch's local map.
    """

    def __init__(
        self, config: ModelConfig, num_classes: int, num_cameras: int = 0, pretrained: bool | Collection[str] = False
    ):
        super().__init__()
        pretrained = ("cnn", "transformer") if pretrained is True else pretrained or ()
        self.config = config
        self.num_cameras = num_cameras
        self.branches = nn.ModuleDict()
        if config.cnn:
            self.branches["cnn"] = CNNBranch(config.cnn, stem=config.stem, pretrained="cnn" in pretrained)
        if config.transformer:
            self.branches["transformer"] = TransformerBranch(
                config.transformer,
                image_size=config.image_size,
                stride=config.stride,
                num_cameras=num_cameras,
                camera_scale=config.camera_scale,
                drop_path=config.drop_path,
                pretrained="transformer" in pretrained,
            )
        widths = {name: branch.width for name, branch in self.branches.items()}
        self.fusion = (
            DualAttentionMutualFusion(config.fusion, widths) if config.fusion and config.fusion.refine else None
        )
        if self.fusion is not None:
            stages = ("refined", "fused") if len(self.fusion.stack) else ("refined",)
            widths |= {f"{branch}_{stage}": config.fusion.dim for stage in stages for branch in self.branches}
        self.widths: dict[str, int] = {name: widths[name] for name in FEATURES if name in widths}
        self.heads = nn.ModuleDict({name: Head(width, num_classes) for name, width in self.widths.items()})

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        grids = {}
        if "cnn" in self.branches:
            grids["cnn"] = self.branches["cnn"].grid(self.config.image_size)
        if "transformer" in self.branches:
            grids["transformer"] = self.branches["transformer"].grid
        return grids

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Output:
        """Images (B, 3, H, W), float, and cameras (B,), int64, both on the model's device, to `Output`.

        A camera of -1, or `cameras=None`, is one that training has not seen: no camera embedding is added.

        Raises:
            ValueError, TypeError: naming the argument, what was expected and what was found.
        """
        self._check(images, cameras)
        branches = {name: branch(images, cameras) for name, branch in self.branches.items()}
        features = {name: output.token for name, output in branches.items()}
        if self.fusion is not None:
            refined, fused = self.fusion({name: output.local for name, output in branches.items()})
            features |= {f"{name}_refined": token for name, token in refined.items()}
            features |= {f"{name}_fused": token for name, token in fused.items()}
        features = {name: features[name] for name in self.widths}
        logits = {name: self.heads[name](feature) for name, feature in features.items()} if self.training else None
        return Output(features, logits)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """The retrieval vector f_a: all features side by side, (B, sum of `widths`), before normalisation."""
        return torch.cat(list(self(images, cameras).features.values()), dim=1)

    @contextmanager
    def folded(self, on: bool = True) -> Iterator[FusionReID]:
        """Inside, every MFU computes with folded projections: the same function, cheaper (see `CrossAttention`)."""
        units = [module for module in self.modules() if isinstance(module, CrossAttention)]
        before = [unit.folded for unit in units]
        try:
            for unit in units:
                unit.fold(on)
            yield self
        finally:
            for unit, was in zip(units, before, strict=True):
                unit.fold(was)

    def _check(self, images: Tensor, cameras: Tensor | None) -> None:
        expected = (3, *self.config.image_size)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"images: expected shape (batch, {', '.join(map(str, expected))}), found {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise TypeError(f"images: expected floats (see fusionreid.data.normalise), found {images.dtype}")
        if self.training and len(images) < 2:
            raise ValueError(
                "images: batch normalisation needs at least two images when training, found one; "
                "call model.eval() first to embed a single image"
            )
        if cameras is None:
            return
        if cameras.shape != images.shape[:1]:
            raise ValueError(
                f"cameras: expected shape ({len(images)},), one for each image, found {tuple(cameras.shape)}"
            )
        if cameras.dtype != torch.int64:
            raise TypeError(f"cameras: expected int64, found {cameras.dtype}")
        if cameras.device != images.device:
            raise ValueError(f"cameras: expected on {images.device}, where the images are, found on {cameras.device}")
        # Only on the CPU: elsewhere it would wait for the device. A compiled graph would break here.
        if self.num_cameras and len(cameras) and cameras.device.type == "cpu" and not torch.compiler.is_compiling():
            if not -1 <= int(cameras.min()) <= int(cameras.max()) < self.num_cameras:
                raise ValueError(
                    f"cameras: expected 0 to {self.num_cameras - 1} (-1: unseen), found "
                    f"{int(cameras.min())} to {int(cameras.max())}"
                )


def build_model(
    config: ModelConfig, num_classes: int, num_cameras: int = 0, pretrained: bool | Collection[str] = False
) -> FusionReID:
    """FusionReID as configured.

    Args:
        config: `PAPER`, `RELEASED`, or a `dataclasses.replace` of them.
        num_classes: identities in training.
        num_cameras: cameras in training; 0 leaves the camera embedding out.
        pretrained: fetch ImageNet weights by timm, for both branches or for those named, ("cnn",) or ("transformer",);
            for weights in a file, see `fusionreid.models.pretrained`.

    Raises:
        ValueError: for an unknown backbone or fewer than one class.
    """
    if num_classes < 1 or num_cameras < 0:
        raise ValueError(f"expected num_classes >= 1 and num_cameras >= 0, found {num_classes} and {num_cameras}")
    return FusionReID(config, num_classes, num_cameras, pretrained)
