"""Tokens-to-Token ViT (T2T-ViT, Yuan et al., ICCV 2021), which timm lacks (Table VI).

Three soft splits cut overlapping patches, first of the pixels, then of the tokens. A small
Transformer follows each of the first two, a linear layer the third; then comes a plain ViT. The
names of the modules are those of the public weights.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp
from timm.models.vision_transformer import Block, init_weights_vit_timm
from torch import Tensor, nn

# Kernel, stride and padding of each. Together the strides make a step of 16 pixels.
SOFT_SPLITS = ((7, 4, 2), (3, 2, 1), (3, 2, 1))


def soft_split_grids(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of tokens after each soft split of an image of (height, width) pixels."""
    rows, columns = image_size
    grids = []
    for kernel, stride, padding in SOFT_SPLITS:
        rows = (rows + 2 * padding - kernel) // stride + 1
        columns = (columns + 2 * padding - kernel) // stride + 1
        grids.append((rows, columns))
    return grids


def sinusoid_table(positions: int, dim: int) -> Tensor:
    """Position embeddings (1, positions, dim) of sines and cosines (Vaswani et al., 2017)."""
    columns = torch.arange(dim, dtype=torch.float64)
    exponent = 2 * (columns // 2) / dim
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000**exponent
    return torch.where(columns % 2 == 0, angle.sin(), angle.cos())[None].float()


class TokenAttention(nn.Module):
    """One-head attention, (B, N, dim_in) to (B, N, dim).

    The width changes, so the value takes the place of the skip connection. The softmax is scaled by
    the width of the input, not by that of the head: the public weights were trained so.
    """

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.scale = dim_in**-0.5
        self.qkv = nn.Linear(dim_in, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three d) -> three b 1 n d", three=3)
        x = v + self.proj(F.scaled_dot_product_attention(q, k, v, scale=self.scale))
        return rearrange(x, "b 1 n d -> b n d")


class TokenTransformer(nn.Module):
    """The Transformer layer between two soft splits, (B, N, dim_in) to (B, N, dim)."""

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim_in)
        self.attn = TokenAttention(dim_in, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden_features=dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokensToToken(nn.Module):
    """Images (B, 3, H, W) to tokens (B, N, embed_dim), one for about 16 x 16 pixels."""

    def __init__(self, image_size: tuple[int, int], embed_dim: int, token_dim: int):
        super().__init__()
        self.grids = soft_split_grids(image_size)
        self.attention1 = TokenTransformer(3 * 7 * 7, token_dim)
        self.attention2 = TokenTransformer(token_dim * 3 * 3, token_dim)
        self.project = nn.Linear(token_dim * 3 * 3, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        x = images
        layers = (self.attention1, self.attention2, self.project)
        for layer, (rows, _), split in zip(layers, self.grids, SOFT_SPLITS, strict=True):
            kernel, stride, padding = split
            patches = F.unfold(x, kernel, stride=stride, padding=padding)  # (B, C * kernel^2, N)
            tokens = layer(rearrange(patches, "b c n -> b n c"))  # (B, N, D)
            x = rearrange(tokens, "b (h w) d -> b d h w", h=rows)
        return tokens


class T2TViT(nn.Module):
    """T2T-ViT without its classifier; the defaults are T2T-ViT-14.

    `grid` follows from the size of the images: (16, 8) tokens at 256 x 128 pixels. The rate of
    stochastic depth grows linearly from 0 in the first block to `drop_path` in the last.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 128),
        embed_dim: int = 384,
        depth: int = 14,
        heads: int = 6,
        token_dim: int = 64,
        drop_path: float = 0.1,
    ):
        super().__init__()
        self.embed_dim = embed_dim
        self.grid = soft_split_grids(image_size)[-1]
        self.tokens_to_token = TokensToToken(image_size, embed_dim, token_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        positions = 1 + self.grid[0] * self.grid[1]  # the class token has one, too
        self.register_buffer("pos_embed", sinusoid_table(positions, embed_dim))
        self.blocks = nn.ModuleList()
        for index in range(depth):
            rate = drop_path * index / max(1, depth - 1)
            block = Block(embed_dim, heads, mlp_ratio=3.0, drop_path=rate, norm_layer=nn.LayerNorm)
            self.blocks.append(block)
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_weights_vit_timm)

    def patch_embed(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) of images (B, 3, H, W), before class token and position embedding."""
        return self.tokens_to_token(images)
