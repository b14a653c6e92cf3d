"""Tokens-to-Token ViT (T2T-ViT, Yuan et al., ICCV 2021) with Transformer token modules, which timm lacks (Table VI).

Three soft splits (overlapping patches of pixels, then of tokens), the first two each followed by a small Transformer,
turn an image into tokens for a plain ViT. The names are those of its public weights.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers import Mlp
from timm.models.vision_transformer import Block, init_weights_vit_timm
from torch import Tensor, nn

SOFT_SPLITS = (
    (7, 4, 2),
    (3, 2, 1),
    (3, 2, 1),
)  # kernel, stride, padding; together a step of 16 pixels


def soft_split_grids(image_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of tokens after each soft split of an image of (height, width) pixels."""
    grids = [tuple(image_size)]
    for kernel, stride, padding in SOFT_SPLITS:
        grids.append(tuple((side + 2 * padding - kernel) // stride + 1 for side in grids[-1]))
    return grids[1:]


def sinusoid_table(positions: int, dim: int) -> Tensor:
    """Fixed position embeddings (1, positions, dim), of sines and cosines (Vaswani et al., 2017, Sec. 3.5)."""
    exponent = 2 * (torch.arange(dim, dtype=torch.float64) // 2) / dim
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000**exponent
    return torch.where(torch.arange(dim) % 2 == 0, angle.sin(), angle.cos())[None].float()


class TokenAttention(nn.Module):
    """One-head attention from `dim_in` to `dim` channels; as the width changes, the value is the skip connection.

    The softmax is scaled by the width of the input, not by that of the head, as the public weights were trained.
    """

    def __init__(self, dim_in: int, dim: int):
        super().__init__()
        self.scale = dim_in**-0.5
        self.qkv = nn.Linear(dim_in, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # (B, N, dim_in) -> (B, N, dim)
        query, key, value = rearrange(self.qkv(x), "b n (three d) -> three b 1 n d", three=3)
        x = value + self.proj(F.scaled_dot_product_attention(query, key, value, scale=self.scale))
        return rearrange(x, "b 1 n d -> b n d")


class TokenTransformer(nn.Module):
    """The Transformer layer between two soft splits: (B, N, dim_in) -> (B, N, dim)."""

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
    """Images (B, 3, H, W) -> tokens (B, N, embed_dim), one for about each 16 x 16 pixels."""

    def __init__(self, image_size: tuple[int, int], embed_dim: int, token_dim: int):
        super().__init__()
        self.grids = soft_split_grids(image_size)
        self.attention1 = TokenTransformer(3 * SOFT_SPLITS[0][0] ** 2, token_dim)
        self.attention2 = TokenTransformer(token_dim * SOFT_SPLITS[1][0] ** 2, token_dim)
        self.project = nn.Linear(token_dim * SOFT_SPLITS[2][0] ** 2, embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        x, layers = images, (self.attention1, self.attention2, self.project)
        for layer, (kernel, stride, padding), (rows, _) in zip(
            layers, SOFT_SPLITS, self.grids, strict=True
        ):
            tokens = layer(
                rearrange(F.unfold(x, kernel, stride=stride, padding=padding), "b c n -> b n c")
            )
            x = rearrange(tokens, "b (h w) c -> b c h w", h=rows)
        return tokens


class T2TViT(nn.Module):
    """T2T-ViT without its classifier; the defaults are T2T-ViT-14.

    `grid` follows from the size of images, (16, 8) tokens at 256 x 128 pixels. The stochastic-depth rate grows linearly
    from 0 at the first block to `drop_path` at the last.
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
        self.register_buffer(
            "pos_embed", sinusoid_table(1 + self.grid[0] * self.grid[1], embed_dim)
        )
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                heads,
                mlp_ratio=3.0,
                drop_path=drop_path * i / max(1, depth - 1),
                norm_layer=nn.LayerNorm,
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.apply(init_weights_vit_timm)

    def patch_embed(self, images: Tensor) -> Tensor:
        """Tokens (B, N, D) of images (B, 3, H, W), before the class token and the position embedding."""
        return self.tokens_to_token(images)
