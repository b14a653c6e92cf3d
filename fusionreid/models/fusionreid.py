"""FusionReID (Fig. 2): two branches, their fusion, and up to six supervised features."""

from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..options import expect, one_of
from .backbones import CNNBranch, TransformerBranch
from .fusion import BRANCHES, DualAttentionMutualFusion


class Output(NamedTuple):
    """What a forward pass gives, by the names of `config.FEATURES` and in their order.

    `features` are (B, width) each; `logits`, when training, (B, classes) each.
    """

    features: dict[str, Tensor]
    logits: dict[str, Tensor] | None


class BNNeck(nn.Module):
    """Batch norm without a trained bias, then a linear classifier without bias (Luo et al., 2019).

    (B, width) to logits (B, num_classes).
    """

    def __init__(self, width: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> Tensor:
        return self.classifier(self.norm(feature))


class FusionReID(nn.Module):
    """The model of a `ModelConfig`; build it with `build_model`.

    `widths` are the widths of its features, by name and in order.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int,
        num_cameras: int = 0,
        pretrained: Collection[str] = (),
    ):
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.num_cameras = num_cameras if config.transformer else 0  # with an embedding

        self.branches = nn.ModuleDict()
        if config.cnn:
            self.branches["cnn"] = CNNBranch(config, "cnn" in pretrained)
        if config.transformer:
            self.branches["transformer"] = TransformerBranch(
                config, num_cameras, "transformer" in pretrained
            )
        self.widths = {name: branch.width for name, branch in self.branches.items()}

        self.fusion = None
        fusion = config.fusion
        if fusion is not None and fusion.refine:
            self.fusion = DualAttentionMutualFusion(fusion, self.widths)
            stages = ("refined", "fused") if fusion.units else ("refined",)
            for stage in stages:
                for branch in BRANCHES:
                    self.widths[f"{branch}_{stage}"] = fusion.dim

        self.necks = nn.ModuleDict(
            {name: BNNeck(width, num_classes) for name, width in self.widths.items()}
        )

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Height and width of each branch's local map."""
        return {name: branch.grid for name, branch in self.branches.items()}

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Output:
        """Images (B, 3, H, W), float, and cameras (B,), int64, to `Output`, all on one device.

        A camera of -1 is one that training has not seen: it gets no camera embedding.
        `cameras=None` means that all are so. Raises ValueError, naming the argument, what was
        expected and what was found.
        """
        self._check_images(images)
        if cameras is not None:
            self._check_cameras(cameras, images)
        outputs = {name: branch(images, cameras) for name, branch in self.branches.items()}
        features = {name: output.token for name, output in outputs.items()}
        if self.fusion is not None:
            local = {name: output.local for name, output in outputs.items()}
            refined, fused = self.fusion(local)
            for name in BRANCHES:
                features[f"{name}_refined"] = refined[name]
                features[f"{name}_fused"] = fused[name]
        # In the paper's order; without HTMs there are no fused features.
        features = {name: features[name] for name in self.widths}
        logits = None
        if self.training:
            logits = {name: self.necks[name](feature) for name, feature in features.items()}
        return Output(features, logits)

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """The retrieval vector f_a (B, sum of `widths`): the features side by side, as they are."""
        return torch.cat(list(self(images, cameras).features.values()), dim=1)

    def _check_images(self, images: Tensor) -> None:
        height, width = self.config.image_size
        if images.shape[1:] != (3, height, width) or not images.is_floating_point():
            raise ValueError(
                f"images: expected floats (batch, 3, {height}, {width}), as of "
                f"fusionreid.data.normalise, found {images.dtype} {tuple(images.shape)}"
            )
        if self.training and len(images) < 2:
            raise ValueError(
                "images: batch normalisation needs at least two images when training, found one; "
                "call model.eval() first to embed a single image"
            )

    def _check_cameras(self, cameras: Tensor, images: Tensor) -> None:
        expected = (torch.int64, images.shape[:1], images.device)
        if (cameras.dtype, cameras.shape, cameras.device) != expected:
            raise ValueError(
                f"cameras: expected int64 ({len(images)},) on {images.device}, as the images, "
                f"found {cameras.dtype} {tuple(cameras.shape)} on {cameras.device}"
            )
        # The values are looked at on the CPU only: a GPU would have to be waited for. And not while
        # a graph is compiled or exported: it must not depend on values.
        on_cpu = cameras.device.type == "cpu"
        if torch.compiler.is_compiling() or not (on_cpu and self.num_cameras and len(cameras)):
            return
        low = int(cameras.min())
        high = int(cameras.max())
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
    """FusionReID as configured, with random weights.

    Args:
        num_classes: the number of training identities.
        num_cameras: the number of training cameras; 0 leaves the camera embedding out.
        pretrained: whether timm fetches ImageNet weights, for both branches (True) or for those
            named, ("cnn",) or ("transformer",). For a file, see `models.pretrained`.

    Raises ValueError, naming the argument or the backbone.
    """
    expect("config", config, ModelConfig)
    num_classes = expect("num_classes", num_classes, int, 1)
    num_cameras = expect("num_cameras", num_cameras, int, 0)
    if isinstance(pretrained, bool):
        pretrained = BRANCHES if pretrained else ()
    for branch in pretrained:
        one_of("pretrained", branch, BRANCHES)
    return FusionReID(config, num_classes, num_cameras, pretrained)
