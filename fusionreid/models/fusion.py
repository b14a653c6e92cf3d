"""Dual-attention Mutual Fusion (DMF, Sec. III.B): LRU, SEU, MFU and the HTM that stacks them.

Tokens are kept as two dictionaries with the keys "cnn" and "transformer": the global tokens, (B, D) each, and the
local tokens, (B, N, D) each. N may differ between the branches.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import pack, rearrange, unpack
from torch import Tensor, nn

from ..config import FusionConfig

BRANCHES = ("cnn", "transformer")
OTHER = {"cnn": "transformer", "transformer": "cnn"}
Tokens = dict[str, Tensor]


class GeM(nn.Module):
    """Generalised-mean pooling with a learnable exponent (Radenovic et al.): (B, D, H, W) to (B, D)."""

    def __init__(self, exponent: float = 3.0, epsilon: float = 1e-6):
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), exponent))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=self.epsilon).pow(self.exponent).mean(dim=(2, 3)).pow(1 / self.exponent)


class GAP(nn.Module):
    """Global average pooling: (B, D, H, W) to (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


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


class FeedForward(nn.Sequential):
    """FFN: two linear projections with GELU, four times as wide inside."""

    def __init__(self, dim: int, ratio: int = 4):
        super().__init__(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))


class SelfAttention(nn.Module):
    """Multi-head self-attention (MHSA): (B, N, D) to (B, N, D). Projections to q, k, v have no bias."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        return rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._split(x)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))

    def weights(self, x: Tensor) -> Tensor:
        """The attention weights (B, heads, N, N) that `forward` uses on the same input; rows sum to 1."""
        q, k, _ = self._split(x)
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)


class CrossAttention(nn.Module):
    """Multi-head cross-attention (MHCA) of one query to N tokens, Eqs. 6 and 7.

    With one query the key projection can be folded into the query and the value projection applied after the
    weighted sum: q_h . (W_k x) = (W_k' q_h) . x, and sum_n a_n W_v x_n = W_v sum_n a_n x_n. It is the same function
    for 4 D^2 + 2 N D heads multiply-adds instead of 2 (1 + N) D^2 + 2 N D, and never makes keys or values.
    `fold(True)` chooses it.

    Args:
        key_norm: applied to the tokens before the key projection (not before the value projection).
    """

    def __init__(self, dim: int, heads: int, key_norm: nn.Module | None = None):
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.key_norm = key_norm or nn.Identity()
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.fold(False)

    def fold(self, on: bool = True) -> None:
        """Computes with folded projections (the same function, cheaper), or as the equations are written."""
        self.folded = on
        self._attend = self._attend_folded if on else self._attend_plain

    def forward(self, query: Tensor, tokens: Tensor) -> Tensor:
        """Query (B, D) and tokens (B, N, D) of the other branch to M (B, D)."""
        return self.proj(self._attend(query, tokens))

    def _attend_plain(self, query: Tensor, tokens: Tensor) -> Tensor:
        q = rearrange(self.q(query), "b (h d) -> b h 1 d", h=self.heads)
        k = rearrange(self.k(self.key_norm(tokens)), "b n (h d) -> b h n d", h=self.heads)
        v = rearrange(self.v(tokens), "b n (h d) -> b h n d", h=self.heads)
        return rearrange(F.scaled_dot_product_attention(q, k, v), "b h 1 d -> b (h d)")

    def _attend_folded(self, query: Tensor, tokens: Tensor) -> Tensor:
        weights = self.weights(query, tokens)  # (B, h, N)
        mixed = weights @ tokens  # (B, h, D)
        value = rearrange(self.v.weight, "(h d) c -> h d c", h=self.heads)
        return rearrange(torch.einsum("bhc,hdc->bhd", mixed, value), "b h d -> b (h d)")

    def weights(self, query: Tensor, tokens: Tensor) -> Tensor:
        """The attention weights (B, heads, N) that `forward` uses on the same input; they sum to 1 over N."""
        q = rearrange(self.q(query), "b (h d) -> b h d", h=self.heads)
        key = rearrange(self.k.weight, "(h d) c -> h d c", h=self.heads)
        folded_query = torch.einsum("bhd,hdc->bhc", q, key)
        return (folded_query @ self.key_norm(tokens).mT * self.scale).softmax(dim=-1)


class SharedEncodingUnit(nn.Module):
    """SEU, Eqs. 3 to 5: one pre-norm Transformer block over the global and the local tokens of a branch."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = SelfAttention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim)
        self.norm = nn.LayerNorm(config.dim) if config.seu_norm else nn.Identity()

    def forward(self, token: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Token (B, D) and local tokens (B, N, D) to S^g (B, D) and S^l (B, N, D)."""
        x, shapes = pack([token, local], "b * d")  # (B, 1 + N, D)
        x = x + self.attention(self.norm1(x))
        x = x + self.ffn(self.norm2(x))
        token, local = unpack(self.norm(x), shapes, "b * d")
        return token, local


class MutualFusionUnit(nn.Module):
    """MFU, Eqs. 6 to 9: M = MHCA(token, local tokens of the other branch), f = FFN(M) + M."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.attention = CrossAttention(config.dim, config.heads)
        self.ffn = FeedForward(config.dim)

    def forward(self, token: Tensor, local: Tensor) -> Tensor:
        """Token (B, D) and the other branch's local tokens (B, N, D) to the fused token (B, D)."""
        mixed = self.attention(token, local)
        return self.ffn(mixed) + mixed


class ResidualMutualFusionUnit(nn.Module):
    """MFU as the released code computes it: a pre-norm block whose residuals carry the query."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = CrossAttention(config.dim, config.heads, key_norm=nn.LayerNorm(config.dim))
        self.norm2 = nn.LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim)

    def forward(self, token: Tensor, local: Tensor) -> Tensor:
        """Token (B, D) and the other branch's local tokens (B, N, D) to the fused token (B, D)."""
        token = token + self.attention(self.norm1(token), local)
        return token + self.ffn(self.norm2(token))


MFU = {"attention": MutualFusionUnit, "query": ResidualMutualFusionUnit}


def _both(make, share: bool) -> nn.ModuleDict:
    """A unit for each branch, or, shared, the same object for both."""
    first = make()
    return nn.ModuleDict({"cnn": first, "transformer": first if share else make()})


class Encode(nn.Module):
    """The SEU step of an HTM: each branch's tokens attend to themselves."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.unit = _both(lambda: SharedEncodingUnit(config), config.share_seu)

    def forward(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        encoded = {branch: self.unit[branch](tokens[branch], local[branch]) for branch in BRANCHES}
        return {branch: encoded[branch][0] for branch in BRANCHES}, {branch: encoded[branch][1] for branch in BRANCHES}


class Fuse(nn.Module):
    """The MFU step of an HTM: each branch's global token attends to the other branch's local tokens."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.unit = _both(lambda: MFU[config.mfu_residual](config), config.share_mfu)

    def forward(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        return {branch: self.unit[branch](tokens[branch], local[OTHER[branch]]) for branch in BRANCHES}, local


class HeterogeneousTransmissionModule(nn.Module):
    """HTM (Fig. 3 (a), Fig. 4): the units in the configured order. Only the global tokens move on."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        steps = {"seu": Encode, "mfu": Fuse}
        self.steps = nn.ModuleDict({name: steps[name](config) for name in config.units})

    @property
    def seu(self) -> nn.ModuleDict | None:
        """The SEU of each branch ("cnn", "transformer"; shared: the same object), or None."""
        return self.steps["seu"].unit if "seu" in self.steps else None

    @property
    def mfu(self) -> nn.ModuleDict | None:
        """The MFU of each branch, or None."""
        return self.steps["mfu"].unit if "mfu" in self.steps else None

    def forward(self, tokens: Tokens, local: Tokens) -> Tokens:
        for step in self.steps.values():
            tokens, local = step(tokens, local)
        return tokens


class DualAttentionMutualFusion(nn.Module):
    """DMF (Sec. III.B): LRU aligns the branches, stacked HTMs fuse them.

    Args:
        config: dimensions, depth, units, sharing.
        widths: D_c and D_t, keyed by branch.
    """

    def __init__(self, config: FusionConfig, widths: dict[str, int]):
        super().__init__()
        pools = {"gem": GeM, "gap": GAP}
        self.refine = nn.ModuleDict({b: LocalRefinementUnit(widths[b], config.dim, config.kernel) for b in BRANCHES})
        self.pool = nn.ModuleDict({branch: pools[config.pooling]() for branch in BRANCHES})
        self.stack = nn.ModuleList(
            HeterogeneousTransmissionModule(config) for _ in range(config.depth if config.units else 0)
        )
        self.apply(_initialise)

    def forward(self, local: Tokens) -> tuple[Tokens, Tokens]:
        """X (B, D_b, H, W) of both branches to the refined f'_0 and, with HTMs, the fused f'_L, (B, D) each."""
        refined = {branch: self.refine[branch](local[branch]) for branch in BRANCHES}
        refined_tokens = {branch: self.pool[branch](refined[branch]) for branch in BRANCHES}
        patches = {branch: rearrange(refined[branch], "b d h w -> b (h w) d") for branch in BRANCHES}
        tokens = refined_tokens
        for htm in self.stack:
            tokens = htm(tokens, patches)
        return refined_tokens, tokens if len(self.stack) else {}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.zeros_(module.bias)
