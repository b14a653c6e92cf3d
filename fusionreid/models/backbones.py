"""The two branches of the Dual-branch Feature Extraction (DFE, Sec. III.A), over timm.

Each branch gives one global vector and one local map; how big they are, it says itself (`width`, `grid`).
"""

from typing import NamedTuple

import timm
import torch
from einops import rearrange, repeat
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ..config import ModelConfig
from .fusion import GeM
from .t2t_vit import T2TViT

# Which of timm's ImageNet weights are fetched: those that re-identification starts from by custom, torchvision's first
# ResNets and the original ViT. timm's own defaults are trained by newer recipes and fine-tune to other numbers.
IMAGENET = {
    **dict.fromkeys(("resnet50", "resnet101", "resnet152"), "tv_in1k"),
    "vit_base_patch16_224": "orig_in21k_ft_in1k",
    "deit_base_patch16_224": "fb_in1k",
}

# The demo's small stand-ins, with the paper's steps of 16 and 12 pixels on images of half the side: 8 x 4 local tokens
# of the CNN, 10 x 5 of the Transformer. The paper's own 16 x 8 and 21 x 10 would cost three times as much and leave a
# third of the training (`benchmarks/stand_ins.csv`).
_NARROW = {"stem_width": 8, "channels": (16, 32, 48, 96)}

# Branches that timm does not have by name: the paper's T2T-ViT-14, and the small stand-ins.
SMALL: dict[str, tuple[str | type[T2TViT], dict]] = {
    "t2t_vit_14": (T2TViT, {}),
    "test_resnet_small": ("test_resnet", _NARROW),
    "test_resnet_deep": ("test_resnet", _NARROW | {"layers": (1, 2, 2, 1)}),
    "test_resnet_deeper": ("test_resnet", _NARROW | {"layers": (2, 2, 3, 2)}),
    "test_vit_small": ("test_vit", {}),
    "test_deit_small": ("test_vit", {}),
    "test_t2t_vit": (T2TViT, {"embed_dim": 64, "depth": 4, "heads": 2, "token_dim": 16}),
}

_PLAIN = "expected a plain ViT of timm with one class token and position embeddings"
_FROM_A_FILE = (
    "give a file, --cnn-weights or --transformer-weights, or put it at data/weights/{}.pth"
)


class BranchOutput(NamedTuple):
    """What a branch gives: `token` (B, D), the global feature, and `local` (B, D, H, W), the local ones."""

    token: Tensor
    local: Tensor


def patch_grid(image_size: tuple[int, int], stride: int, patch: int = 16) -> tuple[int, int]:
    """Rows and columns of the patches of an image; they overlap where the stride is less than the patch."""
    height, width = image_size
    return (height - patch) // stride + 1, (width - patch) // stride + 1


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Position embeddings (1, 1 + h * w, D) of one grid, bilinearly resized to another; the class token's is kept."""
    return resample_abs_pos_embed(positions, new, old, interpolation="bilinear", antialias=False)


def create(
    name: str,
    pretrained: bool = False,
    *,
    image_size: tuple[int, int] = (256, 128),
    drop_path: float = 0.0,
    **options,
) -> nn.Module:
    """The backbone of this name: one of `SMALL`, or any of timm's, which `options` are for.

    Raises ValueError, naming the backbone, if nobody knows it; OSError if its ImageNet weights cannot be fetched.
    """
    maker, fixed = SMALL.get(name, (name, {}))
    if maker is T2TViT:
        if pretrained:
            raise ValueError(
                f"{name}: no public weights to fetch by name; {_FROM_A_FILE.format(name)}"
            )
        return T2TViT(image_size, drop_path=drop_path, **fixed)
    if not timm.is_model(maker):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8]) or "none"
        raise ValueError(f"backbone {name!r} is unknown to timm and to fusionreid; near it: {near}")
    known = f"{maker}.{IMAGENET[maker]}" if pretrained and maker in IMAGENET else maker
    options |= {"drop_path_rate": drop_path} if drop_path else {}
    try:
        return timm.create_model(known, pretrained=pretrained, num_classes=0, **options, **fixed)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        why = str(error).strip().split("\n")[0]
        raise OSError(
            f"{known}: its weights cannot be fetched ({why}); {_FROM_A_FILE.format(name)}"
        ) from error


def keep_last_resolution(cnn: nn.Module) -> None:
    """Sets the last stride of 2 to 1, shortcut included, so that the map is 1/16 of the image and not 1/32."""
    layers = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    strided = {
        n: m for n, m in cnn.named_modules() if isinstance(m, layers) and m.stride in (2, (2, 2))
    }
    if not strided:
        raise ValueError(
            f"ModelConfig.cnn: {type(cnn).__name__} has no layer of stride 2; expected a CNN of timm"
        )
    last_block = list(strided)[-1].split(".")[:2]
    for name in [name for name in strided if name.split(".")[:2] == last_block]:
        if isinstance(strided[name], nn.Conv2d):
            strided[name].stride = (1, 1)
        else:  # the pooled shortcut of a ResNet-D
            cnn.set_submodule(name, nn.Identity())


class CNNBranch(nn.Module):
    """A CNN, timm's or of `SMALL`, whose last stride is 1, pooled by GeM to f_c (Sec. III.A)."""

    def __init__(self, config: ModelConfig, pretrained: bool = False):
        super().__init__()
        self.base = create(config.cnn, pretrained, global_pool="")
        if config.stem == "released":
            if not hasattr(self.base, "maxpool"):
                raise ValueError(
                    f"ModelConfig.stem='released' is for ResNets; {config.cnn!r} has no such stem"
                )
            self.base.act1 = nn.Identity()
            self.base.maxpool = nn.MaxPool2d(kernel_size=2, stride=2)
        keep_last_resolution(self.base)
        self.image_size = config.image_size
        self.width: int = self.base.num_features
        self.pool = GeM()

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> BranchOutput:
        """Images (B, 3, H, W) to f_c (B, D_c) and X_c (B, D_c, H / 16, W / 16). Cameras do not matter here."""
        local = self.base.forward_features(images)
        return BranchOutput(self.pool(local), local)

    @property
    @torch.no_grad()
    def grid(self) -> tuple[int, int]:
        """Height and width of X_c."""
        was_training = self.training
        local = self.eval()(next(self.parameters()).new_zeros(1, 3, *self.image_size)).local
        self.train(was_training)
        return tuple(local.shape[-2:])


class TransformerBranch(nn.Module):
    """A Vision Transformer with overlapping patches and camera embedding (Sec. III.A).

    It is a ViT of timm with a class token, or one of `SMALL`; T2T-ViTs have a grid of their own, whatever the stride.
    """

    def __init__(self, config: ModelConfig, num_cameras: int = 0, pretrained: bool = False):
        super().__init__()
        options = {
            "image_size": config.image_size,
            "drop_path": config.drop_path,
            "global_pool": "token",
        }
        try:
            self.base = create(config.transformer, pretrained, **options)
        except (AssertionError, TypeError) as error:  # how timm says that it has no class token
            raise ValueError(
                f"ModelConfig.transformer={config.transformer!r}: {error}; {_PLAIN}"
            ) from error
        is_t2t = isinstance(self.base, T2TViT)
        self.grid: tuple[int, int] = (
            self.base.grid if is_t2t else _overlap(self.base, config, pretrained)
        )
        self.width: int = self.base.embed_dim
        self.camera_scale = config.camera_scale
        self.camera_embedding = (
            nn.Parameter(torch.zeros(num_cameras, 1, self.width)) if num_cameras else None
        )
        if num_cameras:
            nn.init.trunc_normal_(self.camera_embedding, std=0.02)

    def embed_cameras(self, cameras: Tensor | None) -> Tensor | float:
        """(B, 1, D), added to every token; zero for an unseen camera (-1)."""
        if self.camera_embedding is None or cameras is None:
            return 0.0
        seen = rearrange(cameras >= 0, "b -> b 1 1")
        return self.camera_scale * torch.where(
            seen, self.camera_embedding[cameras.clamp(min=0)], 0.0
        )

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> BranchOutput:
        """Images (B, 3, H, W) and cameras (B,) to f_t (B, D_t) and X_t (B, D_t, H_t, W_t)."""
        patches = self.base.patch_embed(images)  # (B, N, D)
        cls = repeat(self.base.cls_token, "1 1 d -> b 1 d", b=images.shape[0])
        tokens = (
            torch.cat([cls, patches], dim=1) + self.base.pos_embed + self.embed_cameras(cameras)
        )
        for block in self.base.blocks:
            tokens = block(tokens)
        tokens = self.base.norm(tokens)
        return BranchOutput(
            tokens[:, 0], rearrange(tokens[:, 1:], "b (h w) d -> b d h w", h=self.grid[0])
        )


def _early_convolutions(width: int, stride: int) -> nn.Sequential:
    """Patches of 16 pixels by three convolutions: small ViTs learn sooner from them (Xiao et al., NeurIPS 2021)."""
    if stride % 4:
        raise ValueError(
            f"ModelConfig.stride={stride}; expected a multiple of 4 for the small ViTs"
        )
    layers = []
    for inside, outside in ((3, 16), (16, 32)):
        layers += [
            nn.Conv2d(inside, outside, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(32, width, 4, stride // 4))


def _check_plain(vit: nn.Module, name: str) -> None:
    """Refuses a ViT that does what `TransformerBranch.forward` does not, and would silently compute something else."""
    kinds = {
        f"is a {type(vit).__name__}": not isinstance(vit, timm.models.VisionTransformer),
        "has no class token, or several": getattr(vit, "num_prefix_tokens", 0) != 1,
        "has no position embeddings": getattr(vit, "pos_embed", None) is None,
        "normalises its tokens before the first block": not isinstance(
            getattr(vit, "norm_pre", None), nn.Identity
        ),
        "has no position for its class token": getattr(vit, "no_embed_class", False),
    }
    for kind in [kind for kind, found in kinds.items() if found]:
        raise ValueError(f"ModelConfig.transformer={name!r} {kind}; {_PLAIN}")


def _overlap(vit: nn.Module, config: ModelConfig, pretrained: bool) -> tuple[int, int]:
    """Gives the patches their stride, and the position embeddings the grid that follows from it."""
    _check_plain(vit, config.transformer)
    embed = vit.patch_embed
    patch = embed.patch_size[0]
    grid = patch_grid(config.image_size, config.stride, patch)
    if min(grid) < 1:
        raise ValueError(
            f"ModelConfig.image_size={config.image_size} is smaller than one patch of {patch} pixels"
        )
    embed.proj.stride = (config.stride, config.stride)
    embed.img_size, embed.flatten = None, True  # images of any size, to (B, N, D)
    if config.transformer in SMALL:
        embed.proj = _early_convolutions(vit.embed_dim, config.stride)
    if pretrained:
        positions = resize_positions(vit.pos_embed.data, embed.grid_size, grid)
    else:
        positions = nn.init.trunc_normal_(
            torch.empty(1, 1 + grid[0] * grid[1], vit.embed_dim), std=0.02
        )
    vit.pos_embed = nn.Parameter(positions)
    return grid
