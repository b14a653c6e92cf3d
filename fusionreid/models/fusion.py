"""Dual-attention Mutual Fusion (DMF, Sec. III.B): LRU, SEU, MFU and the HTM that stacks them.

Tokens are kept as two dictionaries with the keys "cnn" and "transformer": the global tokens, (B, D) each, and the
local tokens, (B, N, D) each. N may differ between the branches.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import pack, rearrange, unpack
from timm.layers import Mlp, SelectAdaptivePool2d
from torch import Tensor, nn

from ..config import FusionConfig

BRANCHES = ("cnn", "transformer")
OTHER = {"cnn": "transformer", "transformer": "cnn"}
Tokens = dict[str, Tensor]


class GeM(nn.Module):
    """Generalised-mean pooling with a learnable exponent (Radenovic et al.): (B, D, H, W) to (B, D)."""

    def __init__(self):
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=1e-6).pow(self.exponent).mean(dim=(2, 3)).pow(1 / self.exponent)


class LocalRefinementUnit(nn.Module):
    """LRU, Eqs. 1 and 2: depth-wise, then point-wise convolution, each with BN and PReLU.

    X (B, width, H, W) to F (B, dim, H, W); `kernel` is the depth-wise kernel's side.
    """

    def __init__(self, width: int, dim: int, kernel: int = 3):
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.PReLU()
        self.pointwise = nn.Conv2d(width, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.act2 = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.norm1(self.depthwise(x)))  # (B, width, H, W)
        return self.act2(self.norm2(self.pointwise(x)))  # (B, dim, H, W)


class Attention(nn.Module):
    """Multi-head attention of tokens to themselves (MHSA, Eq. 3) or to a context (MHCA, Eqs. 6 and 7).

    `key_norm` is applied to the tokens before the projection to keys, not before the one to values.
    """

    def __init__(self, dim: int, heads: int, key_norm: nn.Module | None = None):
        super().__init__()
        self.heads = heads
        self.key_norm = key_norm or nn.Identity()
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """x, (B, M, D) or one token (B, D), to the same shape; the context is (B, N, D), or None: x itself."""
        tokens = x if context is None else context
        q, k = self._queries_and_keys(x, tokens)
        v = rearrange(self.v(tokens), "b n (h d) -> b h n d", h=self.heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(mixed, "b h m d -> b m (h d)").reshape(x.shape))

    def weights(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The weights that `forward` uses: (B, heads, M, N), or (B, heads, N) of one token; they sum to 1 over N."""
        q, k = self._queries_and_keys(x, x if context is None else context)
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)
        return weights.reshape(len(x), self.heads, *x.shape[1:-1], -1)

    def _queries_and_keys(self, x: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        q = rearrange(
            self.q(x), "b ... (h d) -> b h (...) d", h=self.heads
        )  # (B, heads, M, D / heads)
        return q, rearrange(self.k(self.key_norm(tokens)), "b n (h d) -> b h n d", h=self.heads)


class Block(nn.Module):
    """A pre-norm Transformer block: x + Attention(LN(x), context), then + FFN(LN(x))."""

    def __init__(self, config: FusionConfig, key_norm: nn.Module | None = None):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads, key_norm)
        self.norm2 = nn.LayerNorm(config.dim)
        self.ffn = Mlp(config.dim, 4 * config.dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), context)
        return x + self.ffn(self.norm2(x))


class SharedEncodingUnit(Block):
    """SEU, Eqs. 3 to 5: one block over the global and the local tokens of a branch."""

    def __init__(self, config: FusionConfig):
        super().__init__(config)
        self.norm = nn.LayerNorm(config.dim) if config.seu_norm else nn.Identity()

    def forward(self, token: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Token (B, D) and local tokens (B, N, D) to S^g (B, D) and S^l (B, N, D)."""
        x, shapes = pack([token, local], "b * d")  # (B, 1 + N, D)
        return tuple(unpack(self.norm(super().forward(x)), shapes, "b * d"))


class MutualFusionUnit(Block):
    """MFU that keeps the query ("query", the default): a block from a token (B, D) to the other branch's local tokens.

    The paper's own Table VI and Fig. 5 contradict Eqs. 6 to 9 as they are printed.
    """

    def __init__(self, config: FusionConfig):
        super().__init__(config, key_norm=nn.LayerNorm(config.dim))


class PrintedMutualFusionUnit(nn.Module):
    """MFU as Eqs. 6 to 9 are printed ("attention"): M = MHCA(token, the other's local tokens), f = FFN(M) + M."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.attention = Attention(config.dim, config.heads)
        self.ffn = Mlp(config.dim, 4 * config.dim)

    def forward(self, token: Tensor, local: Tensor) -> Tensor:
        """Token (B, D) and the other branch's local tokens (B, N, D) to the fused token (B, D)."""
        mixed = self.attention(token, local)
        return self.ffn(mixed) + mixed


MFU = {"query": MutualFusionUnit, "attention": PrintedMutualFusionUnit}


def _both(make: Callable[[], nn.Module], share: bool) -> nn.ModuleDict:
    """A unit for each branch, or, shared, the same object for both."""
    first = make()
    return nn.ModuleDict({"cnn": first, "transformer": first if share else make()})


class HeterogeneousTransmissionModule(nn.Module):
    """HTM (Fig. 3 (a), Fig. 4): the units in the configured order. Only the global tokens move on."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        mfu = MFU[config.mfu_residual]
        self.units = config.units
        self.seu = (
            _both(lambda: SharedEncodingUnit(config), config.share_seu)
            if "seu" in config.units
            else None
        )
        self.mfu = _both(lambda: mfu(config), config.share_mfu) if "mfu" in config.units else None

    def encode(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        """SEU: the tokens of each branch attend to themselves."""
        both = {branch: self.seu[branch](tokens[branch], local[branch]) for branch in BRANCHES}
        return {branch: both[branch][0] for branch in BRANCHES}, {
            branch: both[branch][1] for branch in BRANCHES
        }

    def fuse(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        """MFU: each branch's global token attends to the other branch's local tokens."""
        return {
            branch: self.mfu[branch](tokens[branch], local[OTHER[branch]]) for branch in BRANCHES
        }, local

    STEPS = {"seu": encode, "mfu": fuse}

    def forward(self, tokens: Tokens, local: Tokens) -> Tokens:
        for unit in self.units:
            tokens, local = self.STEPS[unit](self, tokens, local)
        return tokens


class DualAttentionMutualFusion(nn.Module):
    """DMF (Sec. III.B): LRU aligns the branches, of `widths` D_c and D_t, and stacked HTMs fuse them."""

    def __init__(self, config: FusionConfig, widths: dict[str, int]):
        super().__init__()
        pool = {"gem": GeM, "gap": partial(SelectAdaptivePool2d, pool_type="fast", flatten=True)}[
            config.pooling
        ]
        depth = config.depth if config.units else 0
        self.refine = nn.ModuleDict(
            {b: LocalRefinementUnit(widths[b], config.dim, config.kernel) for b in BRANCHES}
        )
        self.pool = nn.ModuleDict({branch: pool() for branch in BRANCHES})
        self.stack = nn.ModuleList(HeterogeneousTransmissionModule(config) for _ in range(depth))

    def forward(self, local: Tokens) -> tuple[Tokens, Tokens]:
        """X (B, D_b, H, W) of both branches to the refined f'_0 and, with HTMs, the fused f'_L, (B, D) each."""
        refined = {branch: self.refine[branch](local[branch]) for branch in BRANCHES}
        refined_tokens = {branch: self.pool[branch](refined[branch]) for branch in BRANCHES}
        patches = {
            branch: rearrange(refined[branch], "b d h w -> b (h w) d") for branch in BRANCHES
        }
        tokens = refined_tokens
        for htm in self.stack:
            tokens = htm(tokens, patches)
        return refined_tokens, tokens if len(self.stack) else {}
