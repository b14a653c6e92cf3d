"""The two branches of the Dual-branch Feature Extraction (DFE, Sec. III.A), over timm.

Each branch gives one global vector and one local map; how big they are, it says itself (`width`, `grid`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from .fusion import GeM
from .t2t_vit import T2TViT

# Which of timm's ImageNet weights are fetched: those that re-identification starts from by custom, torchvision's first
# ResNets and the original ViT. timm's own defaults are trained by newer recipes and fine-tune to other numbers.
IMAGENET = {
    "resnet50": "tv_in1k",
    "resnet101": "tv_in1k",
    "resnet152": "tv_in1k",
    "vit_base_patch16_224": "orig_in21k_ft_in1k",
    "deit_base_patch16_224": "fb_in1k",
}

# Half the width of timm's test_resnet and half its time, which pays for more epochs of every run of the demo. Alone it
# is the weaker network: 77 mAP to 84, on the demo's people in eight epochs.
_NARROW = {"stem_width": 8, "channels": (16, 32, 48, 96)}

# Branches that timm does not have by name: the paper's T2T-ViT-14, and the demo's small stand-ins.
SMALL: dict[str, tuple[str | Callable, dict]] = {
    "t2t_vit_14": (T2TViT, {}),
    "test_resnet_small": ("test_resnet", _NARROW),
    "test_resnet_deep": ("test_resnet", _NARROW | {"layers": (1, 2, 2, 1)}),
    "test_resnet_deeper": ("test_resnet", _NARROW | {"layers": (2, 2, 3, 2)}),
    "test_deit": ("test_vit", {"depth": 4}),
    "test_t2t_vit": (T2TViT, {"embed_dim": 64, "depth": 4, "heads": 2, "token_dim": 16}),
}


def patch_grid(image_size: tuple[int, int], stride: int, patch: int = 16) -> tuple[int, int]:
    """Rows and columns of the patches of an image; they overlap where the stride is less than the patch."""
    height, width = image_size
    return (height - patch) // stride + 1, (width - patch) // stride + 1


_FROM_A_FILE = "give a file, --cnn-weights or --transformer-weights, or put it at data/weights/{}.pth"


class BranchOutput(NamedTuple):
    """What a branch gives: `token` (B, D), the global feature, and `local` (B, D, H, W), the local ones."""

    token: Tensor
    local: Tensor


def create(name: str, **options) -> nn.Module:
    """The backbone of this name: one of `SMALL`, or any of timm's.

    Raises:
        ValueError: naming the backbone, if nobody knows it.
    """
    maker, fixed = SMALL.get(name, (name, {}))
    if callable(maker):
        if options.pop("pretrained", False):
            raise ValueError(f"{name}: no public weights to fetch by name; {_FROM_A_FILE.format(name)}")
        return maker(**fixed, **{key: options[key] for key in ("image_size", "drop_path") if key in options})
    if not timm.is_model(maker):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:8]
        raise ValueError(
            f"backbone {name!r} is unknown to timm and to fusionreid; near it: {', '.join(near) or 'none'}"
        )
    timm_options = {"drop_path_rate": options["drop_path"]} if "drop_path" in options else {}
    pretrained = options.get("pretrained", False)
    known = f"{maker}.{IMAGENET[maker]}" if pretrained and maker in IMAGENET else maker
    rest = options.get("timm", {}) | timm_options | fixed
    try:
        return timm.create_model(known, pretrained=pretrained, num_classes=0, **rest)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        why = str(error).strip().split("\n")[0]
        raise OSError(f"{known}: its weights cannot be fetched ({why}); {_FROM_A_FILE.format(name)}") from error


def keep_last_resolution(cnn: nn.Module) -> None:
    """Sets the last stride of 2 to 1, shortcut included, so that the map is 1/16 of the image and not 1/32."""
    strided = [
        (name, module)
        for name, module in cnn.named_modules()
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and _side(module.stride) == 2
    ]
    if not strided:
        raise ValueError(f"{type(cnn).__name__} has no layer of stride 2; expected a CNN of timm")
    last_block = strided[-1][0].split(".")[:2]
    for name, module in strided:
        if name.split(".")[:2] != last_block:
            continue
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:  # the pooled shortcut of a ResNet-D
            parent, _, child = name.rpartition(".")
            setattr(cnn.get_submodule(parent), child, nn.Identity())


def _side(value) -> int:
    return value[0] if isinstance(value, tuple) else value


class CNNBranch(nn.Module):
    """A CNN whose last stride is 1, pooled by GeM to f_c (Sec. III.A).

    Args:
        name: a CNN of timm, or of `SMALL`.
        stem: "imagenet", or "released": no ReLU after the first BN, 2 x 2 max pool without padding.
        pretrained: ImageNet weights, fetched by timm.
    """

    def __init__(self, name: str, *, stem: str = "imagenet", pretrained: bool = False):
        super().__init__()
        self.base = create(name, pretrained=pretrained, timm={"global_pool": ""})
        if stem == "released":
            if not hasattr(self.base, "maxpool"):
                raise ValueError(f"ModelConfig.stem='released' is for ResNets; {name!r} has no such stem")
            self.base.act1 = nn.Identity()
            self.base.maxpool = nn.MaxPool2d(kernel_size=2, stride=2)
        if not hasattr(self.base, "forward_features") or not hasattr(self.base, "feature_info"):
            raise ValueError(f"ModelConfig.cnn={name!r} gives no feature map; expected a CNN of timm")
        keep_last_resolution(self.base)
        self.width: int = self.base.num_features
        self.pool = GeM()

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> BranchOutput:
        """Images (B, 3, H, W) to f_c (B, D_c) and X_c (B, D_c, H / 16, W / 16). Cameras do not matter here."""
        local = self.base.forward_features(images)
        return BranchOutput(self.pool(local), local)

    @torch.no_grad()
    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of X_c for this image size."""
        was_training = self.training
        self.eval()
        parameter = next(self.parameters())
        local = self(torch.zeros(1, 3, *image_size, device=parameter.device, dtype=parameter.dtype)).local
        self.train(was_training)
        return tuple(local.shape[-2:])


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + h * w, D) of one grid, bilinearly resized to another; the class token's is kept."""
    if old == new:
        return positions
    cls, patches = positions[:, :1], rearrange(positions[:, 1:], "1 (h w) d -> 1 d h w", h=old[0])
    patches = F.interpolate(patches, size=new, mode="bilinear", align_corners=False)
    return torch.cat([cls, rearrange(patches, "1 d h w -> 1 (h w) d")], dim=1)


def _check_plain(vit: nn.Module, name: str) -> None:
    """Refuses a ViT that does what `TransformerBranch.forward` does not, and would silently compute something else."""
    kind = "" if isinstance(vit, timm.models.VisionTransformer) else f"is a {type(vit).__name__}"
    if not isinstance(getattr(vit, "norm_pre", None), nn.Identity):
        kind = kind or "normalises its tokens before the first block"
    if getattr(vit, "no_embed_class", False):
        kind = kind or "has no position for its class token"
    if kind:
        raise ValueError(f"ModelConfig.transformer={name!r} {kind}; expected a plain ViT of timm")


class TransformerBranch(nn.Module):
    """A Vision Transformer with overlapping patches and camera embedding (Sec. III.A).

    Args:
        name: a ViT of timm with a class token, "t2t_vit_14", or one of `SMALL`.
        image_size: (height, width) in pixels.
        stride: step of the patches in pixels; T2T-ViT has a grid of its own and ignores it.
        num_cameras: 0 leaves the camera embedding out.
        camera_scale: the factor of the camera embedding.
        drop_path: the highest stochastic-depth rate.
        pretrained: ImageNet weights, fetched by timm; position embeddings are resized to the grid.
    """

    def __init__(
        self,
        name: str,
        *,
        image_size: tuple[int, int],
        stride: int = 12,
        num_cameras: int = 0,
        camera_scale: float = 3.0,
        drop_path: float = 0.1,
        pretrained: bool = False,
    ):
        super().__init__()
        wanted = (
            f"ModelConfig.transformer={name!r}: expected a ViT of timm with one class token and position embeddings"
        )
        try:
            self.base = create(
                name, pretrained=pretrained, image_size=image_size, drop_path=drop_path, timm={"global_pool": "token"}
            )
        except (AssertionError, TypeError) as error:  # how timm says that it has no class token
            raise ValueError(f"{wanted} ({error})") from error
        if isinstance(self.base, T2TViT):
            self.grid: tuple[int, int] = self.base.grid
            self.embed_patches = self.base.embed_patches
        else:
            if getattr(self.base, "num_prefix_tokens", 0) != 1 or getattr(self.base, "pos_embed", None) is None:
                raise ValueError(wanted)
            _check_plain(self.base, name)
            self.grid = self._overlap(image_size, stride, pretrained)
            self.embed_patches = self._embed_patches
        self.width: int = self.base.embed_dim
        self.camera_scale = camera_scale
        self.num_cameras = num_cameras
        self.camera_embedding = nn.Parameter(torch.zeros(num_cameras, 1, self.width)) if num_cameras else None
        if num_cameras:
            nn.init.trunc_normal_(self.camera_embedding, std=0.02)

    def _overlap(self, image_size: tuple[int, int], stride: int, pretrained: bool) -> tuple[int, int]:
        """Gives the patches their stride and the position embeddings the grid that follows from it."""
        embed = self.base.patch_embed
        patch = embed.patch_size[0]
        grid = patch_grid(image_size, stride, patch)
        if min(grid) < 1:
            raise ValueError(f"ModelConfig.image_size={image_size} is smaller than one patch of {patch} pixels")
        embed.proj.stride = (stride, stride)
        if pretrained:
            positions = resize_positions(self.base.pos_embed.data, embed.grid_size, grid)
        else:
            positions = torch.empty(1, 1 + grid[0] * grid[1], self.base.embed_dim)
            nn.init.trunc_normal_(positions, std=0.02)
        self.base.pos_embed = nn.Parameter(positions)
        return grid

    def _embed_patches(self, images: Tensor) -> Tensor:
        return self.base.patch_embed.norm(rearrange(self.base.patch_embed.proj(images), "b d h w -> b (h w) d"))

    def _embed_cameras(self, cameras: Tensor | None) -> Tensor | float:
        """(B, 1, D), added to every token; zero for an unseen camera (-1)."""
        if self.camera_embedding is None or cameras is None:
            return 0.0
        seen = rearrange(cameras >= 0, "b -> b 1 1")
        return self.camera_scale * torch.where(seen, self.camera_embedding[cameras.clamp(min=0)], 0.0)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> BranchOutput:
        """Images (B, 3, H, W) and cameras (B,) to f_t (B, D_t) and X_t (B, D_t, H_t, W_t)."""
        patches = self.embed_patches(images)  # (B, N, D)
        cls = repeat(self.base.cls_token, "1 1 d -> b 1 d", b=len(images))
        tokens = torch.cat([cls, patches], dim=1) + self.base.pos_embed + self._embed_cameras(cameras)
        for block in self.base.blocks:
            tokens = block(tokens)
        tokens = self.base.norm(tokens)
        return BranchOutput(tokens[:, 0], rearrange(tokens[:, 1:], "b (h w) d -> b d h w", h=self.grid[0]))
