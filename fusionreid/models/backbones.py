"""The two branches of the Dual-branch Feature Extraction (DFE, Sec. III.A), over timm's networks.

Each branch gives one global token and one local map, and says how wide (`width`) and how high and
wide (`grid`) they are.
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

# Which of timm's ImageNet weights are fetched. Re-identification usually starts from these:
# torchvision's first ResNets, and the original ViT and DeiT. timm's own defaults come from newer
# recipes, which lead to other results.
IMAGENET = {
    "resnet50": "tv_in1k",
    "resnet101": "tv_in1k",
    "resnet152": "tv_in1k",
    "vit_base_patch16_224": "orig_in21k_ft_in1k",
    "deit_base_patch16_224": "fb_in1k",
}

# The demo's small stand-ins, each with the network of timm that it is made from. With images of
# half the paper's size and the paper's strides they have 8 x 4 local tokens (CNN) and 10 x 5
# (Transformer). The paper's 16 x 8 and 21 x 10 would take three times as long, so that only a third
# of the training would fit into the same time (`benchmarks/stand_ins.csv`).
_NARROW = {"stem_width": 8, "channels": (16, 32, 48, 96)}
SMALL_NETWORKS = {
    "test_resnet_small": ("test_resnet", _NARROW),
    "test_resnet_deep": ("test_resnet", _NARROW | {"layers": (1, 2, 2, 1)}),
    "test_resnet_deeper": ("test_resnet", _NARROW | {"layers": (2, 2, 3, 2)}),
    "test_vit_small": ("test_vit", {}),
    "test_deit_small": ("test_vit", {}),
}

# T2T-ViTs, which timm lacks: the paper's and its stand-in.
T2T_VITS = {
    "t2t_vit_14": {},
    "test_t2t_vit": {"embed_dim": 64, "depth": 4, "heads": 2, "token_dim": 16},
}

_PLAIN = (
    "expected a plain ViT of timm: one class token, positions for it and for the patches, "
    "no norm before the first block"
)
_FROM_A_FILE = (
    "give a file, --cnn-weights or --transformer-weights, or put it at data/weights/{}.pth"
)


class BranchOutput(NamedTuple):
    """What a branch gives."""

    token: Tensor  # the global feature, (B, D)
    local: Tensor  # the local map, (B, D, H, W)


def patch_grid(image_size: tuple[int, int], stride: int, patch: int = 16) -> tuple[int, int]:
    """Rows and columns of an image's patches, which overlap where the stride is below `patch`."""
    height, width = image_size
    return (height - patch) // stride + 1, (width - patch) // stride + 1


def resize_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resizes position embeddings (1, 1 + h * w, D) bilinearly from the grid `old` to `new`.

    The first one, the class token's, stays as it is.
    """
    assert positions.shape[1] == 1 + old[0] * old[1]
    return resample_abs_pos_embed(positions, new, old, interpolation="bilinear", antialias=False)


def create(name: str, pretrained: bool = False, **options) -> nn.Module:
    """A network of timm, or a stand-in, without its classifier. `options` are timm's.

    Raises ValueError if timm does not know it, OSError if its ImageNet weights cannot be fetched.
    """
    timm_name, stand_in_options = SMALL_NETWORKS.get(name, (name, {}))
    if not timm.is_model(timm_name):
        raise ValueError(f"backbone {name!r} is unknown to timm; timm.list_models() has its names")
    if pretrained and name in IMAGENET:
        timm_name = f"{name}.{IMAGENET[name]}"
    options = {"num_classes": 0} | options | stand_in_options
    try:
        return timm.create_model(timm_name, pretrained=pretrained, **options)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        why = str(error).strip().split("\n")[0]
        raise OSError(
            f"{timm_name}: its weights cannot be fetched ({why}); {_FROM_A_FILE.format(name)}"
        ) from error


def keep_last_resolution(cnn: nn.Module) -> None:
    """Sets the last stride of 2 to 1, so that the map is 1/16 of the image and not 1/32.

    Raises ValueError if the network has no layer of stride 2.
    """
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    strided = {
        name: module
        for name, module in cnn.named_modules()
        if isinstance(module, kinds) and module.stride in (2, (2, 2))
    }
    if not strided:
        raise ValueError(
            f"ModelConfig.cnn: {type(cnn).__name__} has no layer of stride 2; "
            "expected a CNN of timm"
        )
    # A residual block has its stride twice, in the convolutions and in the shortcut.
    last_block = list(strided)[-1].split(".")[:2]
    for name, module in strided.items():
        if name.split(".")[:2] != last_block:
            continue
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        else:  # the shortcut of a ResNet-D pools
            cnn.set_submodule(name, nn.Identity())


class CNNBranch(nn.Module):
    """A CNN of timm or a stand-in. Its map is X_c, the map's generalised mean f_c (Sec. III.A)."""

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
        """Images (B, 3, H, W) to f_c (B, D_c) and X_c (B, D_c, H / 16, W / 16).

        `cameras` are ignored; the other branch needs them.
        """
        local = self.base.forward_features(images)
        return BranchOutput(self.pool(local), local)

    @property
    @torch.no_grad()
    def grid(self) -> tuple[int, int]:
        """Height and width of X_c, found by an image of zeros."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        image = next(self.parameters()).new_zeros(1, 3, *self.image_size)
        height, width = self(image).local.shape[-2:]
        for module, mode in modes.items():
            module.training = mode
        return height, width


class TransformerBranch(nn.Module):
    """A ViT with overlapping patches and a camera embedding, f_t and X_t (Sec. III.A).

    It is a plain ViT of timm, a stand-in, or a T2T-ViT, whose grid does not depend on the stride.
    """

    def __init__(self, config: ModelConfig, num_cameras: int = 0, pretrained: bool = False):
        super().__init__()
        name = config.transformer
        if name in T2T_VITS:
            if pretrained:
                raise ValueError(
                    f"{name}: no public weights to fetch by name; {_FROM_A_FILE.format(name)}"
                )
            self.base = T2TViT(config.image_size, drop_path=config.drop_path, **T2T_VITS[name])
            self.grid = self.base.grid
        else:
            self.base = _plain_vit(config, pretrained)
            self.grid = _overlap(self.base, config, pretrained)
        self.width: int = self.base.embed_dim
        self.camera_scale = config.camera_scale
        self.camera_embedding = None
        if num_cameras:
            self.camera_embedding = nn.Parameter(torch.zeros(num_cameras, 1, self.width))
            nn.init.trunc_normal_(self.camera_embedding, std=0.02)

    def embed_cameras(self, cameras: Tensor | None) -> Tensor | float:
        """What is added to every token of an image, (B, 1, D): 0 for an unseen camera (-1)."""
        if self.camera_embedding is None or cameras is None:
            return 0.0
        seen = rearrange(cameras >= 0, "b -> b 1 1")
        embedding = self.camera_embedding[cameras.clamp(min=0)]
        return self.camera_scale * torch.where(seen, embedding, 0.0)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> BranchOutput:
        """Images (B, 3, H, W) and cameras (B,) to f_t (B, D_t) and X_t (B, D_t, H_t, W_t)."""
        patches = self.base.patch_embed(images)  # (B, N, D)
        class_token = repeat(self.base.cls_token, "1 1 d -> b 1 d", b=images.shape[0])
        tokens = torch.cat([class_token, patches], dim=1)  # (B, 1 + N, D)
        tokens = tokens + self.base.pos_embed + self.embed_cameras(cameras)
        for block in self.base.blocks:
            tokens = block(tokens)
        tokens = self.base.norm(tokens)
        local = rearrange(tokens[:, 1:], "b (h w) d -> b d h w", h=self.grid[0])
        return BranchOutput(tokens[:, 0], local)


def _plain_vit(config: ModelConfig, pretrained: bool) -> nn.Module:
    """A ViT of timm. Raises ValueError if `TransformerBranch` would leave a part of it out."""
    name = f"ModelConfig.transformer={config.transformer!r}"
    try:
        vit = create(
            config.transformer, pretrained, global_pool="token", drop_path_rate=config.drop_path
        )
    except (AssertionError, TypeError) as error:  # timm's, where there is no class token
        raise ValueError(f"{name}: {error}; {_PLAIN}") from error
    is_plain = (
        isinstance(vit, timm.models.VisionTransformer)
        and vit.num_prefix_tokens == 1
        and vit.pos_embed is not None
        and not vit.no_embed_class
        and isinstance(vit.norm_pre, nn.Identity)
    )
    if not is_plain:
        raise ValueError(f"{name} is a {type(vit).__name__}; {_PLAIN}")
    return vit


def _overlap(vit: nn.Module, config: ModelConfig, pretrained: bool) -> tuple[int, int]:
    """Gives the patches their stride and the positions the grid that follows, which it returns."""
    embed = vit.patch_embed
    patch = embed.patch_size[0]
    grid = patch_grid(config.image_size, config.stride, patch)
    if min(grid) < 1:
        raise ValueError(
            f"ModelConfig.image_size={config.image_size} is smaller than one patch "
            f"of {patch} pixels"
        )
    embed.proj.stride = (config.stride, config.stride)
    embed.img_size = None  # timm would accept images of one size only
    embed.flatten = True  # tokens (B, N, D)
    if config.transformer in SMALL_NETWORKS:
        embed.proj = _early_convolutions(vit.embed_dim, config)
    if pretrained:
        positions = resize_positions(vit.pos_embed.data, embed.grid_size, grid)
    else:
        positions = torch.empty(1, 1 + grid[0] * grid[1], vit.embed_dim)
        nn.init.trunc_normal_(positions, std=0.02)
    vit.pos_embed = nn.Parameter(positions)
    return grid


def _early_convolutions(width: int, config: ModelConfig) -> nn.Sequential:
    """The patches of the small ViTs, which learn sooner by convolutions (Xiao et al., 2021)."""
    for number in (config.stride, *config.image_size):
        if number % 4:
            raise ValueError(
                f"ModelConfig.stride={config.stride} and image_size={config.image_size}: "
                "expected multiples of 4 for the small ViTs"
            )
    return nn.Sequential(
        nn.Conv2d(3, 16, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.Conv2d(32, width, kernel_size=4, stride=config.stride // 4),
    )
