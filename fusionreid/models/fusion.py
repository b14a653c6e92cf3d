"""Dual-attention Mutual Fusion (DMF, Sec. III.B): LRU, SEU, MFU, and the HTM of SEU and MFU.

The shapes: B images, D channels, a local map of H x W places, N = H * W local tokens. As in the
paper, c is the CNN and t the Transformer. Each branch has one global token (B, D) and local tokens
(B, N, D); N may differ between the branches. Both are kept by branch, in two dictionaries: `tokens`
and `local`, with the keys "cnn" and "transformer".
"""

import torch
import torch.nn.functional as F
from einops import pack, rearrange, reduce, unpack
from timm.layers import Mlp
from torch import Tensor, nn

from ..config import FusionConfig

BRANCHES = ("cnn", "transformer")
OTHER = {"cnn": "transformer", "transformer": "cnn"}
Tokens = dict[str, Tensor]  # by branch


class GeM(nn.Module):
    """Generalised-mean pooling (Radenovic et al., 2019), (B, D, H, W) to (B, D).

    The exponent is learnt and starts at 3. An exponent of 1 is the mean, a large one the maximum.
    """

    def __init__(self):
        super().__init__()
        self.exponent = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        powers = x.clamp(min=1e-6).pow(self.exponent)  # a root needs numbers above zero
        return reduce(powers, "b d h w -> b d", "mean").pow(1 / self.exponent)


class GAP(nn.Module):
    """Global average pooling, (B, D, H, W) to (B, D)."""

    def forward(self, x: Tensor) -> Tensor:
        return reduce(x, "b d h w -> b d", "mean")


POOLING = {"gem": GeM, "gap": GAP}


class LocalRefinementUnit(nn.Module):
    """LRU, Eqs. 1 and 2: gives the maps of both branches one width, D.

    A branch's map X (B, width, H, W) becomes F (B, dim, H, W); `kernel` is the side of the
    depth-wise kernel.
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
        x = self.act1(self.norm1(self.depthwise(x)))  # Eq. 1: (B, width, H, W)
        return self.act2(self.norm2(self.pointwise(x)))  # Eq. 2: (B, dim, H, W)


class Attention(nn.Module):
    """Multi-head attention, to the tokens themselves (MHSA, Eq. 3) or to others (MHCA, Eqs. 6, 7).

    `key_norm` normalises what the keys are made of. The values are made of the context as it is.
    """

    def __init__(self, dim: int, heads: int, key_norm: nn.Module | None = None):
        super().__init__()
        self.heads = heads
        self.key_norm = key_norm or nn.Identity()
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Tokens (B, M, D) read from a context (B, N, D); the result is (B, M, D)."""
        q = self._split(self.q(x))  # (B, heads, M, d)
        k = self._split(self.k(self.key_norm(context)))  # (B, heads, N, d)
        v = self._split(self.v(context))
        heads = F.scaled_dot_product_attention(q, k, v)  # softmax(Q K^T / sqrt(d)) V of Eq. 6
        return self.proj(rearrange(heads, "b h m d -> b m (h d)"))

    def weights(self, x: Tensor, context: Tensor) -> Tensor:
        """The weights that `forward` uses, (B, heads, M, N). They sum to 1 over N."""
        q = self._split(self.q(x))
        k = self._split(self.k(self.key_norm(context)))
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1)  # softmax(Q K^T / sqrt(d))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, heads, N, d), with d = D / heads."""
        return rearrange(x, "b n (h d) -> b h n d", h=self.heads)


class EncodingBlock(nn.Module):
    """The block of SEU: the global and the local tokens of one branch attend to each other."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim)
        self.ffn = Mlp(config.dim, 4 * config.dim)
        self.norm = nn.LayerNorm(config.dim) if config.seu_norm else nn.Identity()

    def forward(self, token: Tensor, local: Tensor) -> tuple[Tensor, Tensor]:
        """Global token (B, D) and local tokens (B, N, D) to S^g and S^l, of the same shapes."""
        x, shapes = pack([token, local], "b * d")  # F': (B, 1 + N, D)
        normed = self.norm1(x)
        s_hat = self.attention(normed, normed) + x  # Eq. 3: MHSA(LN(F')) + F'
        s = self.ffn(self.norm2(s_hat)) + s_hat  # Eq. 4: FFN(LN(S_hat)) + S_hat
        s_g, s_l = unpack(self.norm(s), shapes, "b * d")  # Eq. 5: S = Concat(S^g, S^l)
        return s_g, s_l


class FusionBlock(nn.Module):
    """The block of MFU that keeps the query ("query", the default).

    A pre-norm Transformer block. Eqs. 6 to 9 as printed (`PrintedFusionBlock`) do not add the
    query: a fused token is then made of the other branch alone. But in the paper's Table VI and
    Fig. 5 a fused token is better where its own branch is better.
    """

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads, key_norm=nn.LayerNorm(config.dim))
        self.norm2 = nn.LayerNorm(config.dim)
        self.ffn = Mlp(config.dim, 4 * config.dim)

    def forward(self, token: Tensor, local: Tensor) -> Tensor:
        """A branch's global token (B, D) and the other's local tokens (B, N, D) to f' (B, D)."""
        query = rearrange(self.norm1(token), "b d -> b 1 d")
        m = rearrange(self.attention(query, local), "b 1 d -> b d")  # Eqs. 6 and 7
        x = m + token  # the query is kept
        return self.ffn(self.norm2(x)) + x  # Eqs. 8 and 9: FFN(LN(x)) + x


class PrintedFusionBlock(nn.Module):
    """The block of MFU as Eqs. 6 to 9 are printed ("attention"): no norms, no query added."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        self.attention = Attention(config.dim, config.heads)
        self.ffn = Mlp(config.dim, 4 * config.dim)

    def forward(self, token: Tensor, local: Tensor) -> Tensor:
        """A branch's global token (B, D) and the other's local tokens (B, N, D) to f' (B, D)."""
        query = rearrange(token, "b d -> b 1 d")
        m = rearrange(self.attention(query, local), "b 1 d -> b d")  # Eqs. 6 and 7
        return self.ffn(m) + m  # Eqs. 8 and 9: FFN(M) + M


FUSION_BLOCKS = {"query": FusionBlock, "attention": PrintedFusionBlock}


class SharedEncodingUnit(nn.ModuleDict):
    """SEU, Eqs. 3 to 5: each branch encodes its own tokens, by its block ("cnn", "transformer").

    Shared, as in the paper, both are the same object.
    """

    name = "seu"

    def __init__(self, config: FusionConfig):
        cnn = EncodingBlock(config)
        transformer = cnn if config.share_seu else EncodingBlock(config)
        super().__init__({"cnn": cnn, "transformer": transformer})

    def forward(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        """Global (B, D) and local tokens (B, N, D) to S^g and S^l, of the same shapes."""
        s_g = {}
        s_l = {}
        for branch, block in self.items():
            s_g[branch], s_l[branch] = block(tokens[branch], local[branch])
        return s_g, s_l


class MutualFusionUnit(nn.ModuleDict):
    """MFU, Eqs. 6 to 9: each branch's global token reads the other branch's local tokens.

    The paper counts two MFUs in an HTM, one for each branch. Here they are the two blocks of one
    unit, "cnn" and "transformer"; shared, both are the same object.
    """

    name = "mfu"

    def __init__(self, config: FusionConfig):
        block = FUSION_BLOCKS[config.mfu_residual]
        cnn = block(config)
        transformer = cnn if config.share_mfu else block(config)
        super().__init__({"cnn": cnn, "transformer": transformer})

    def forward(self, tokens: Tokens, local: Tokens) -> tuple[Tokens, Tokens]:
        """Global (B, D) and local tokens (B, N, D) to f' (B, D) and the same local tokens."""
        cnn = self["cnn"](tokens["cnn"], local["transformer"])  # Eqs. 6 and 8
        transformer = self["transformer"](tokens["transformer"], local["cnn"])  # Eqs. 7 and 9
        return {"cnn": cnn, "transformer": transformer}, local


class HeterogeneousTransmissionModule(nn.Module):
    """HTM (Fig. 3 (a), Fig. 4): `units`, the SEU and the MFU, one after the other."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        # The SEU is made first, also where it runs second: a seed then gives both orders the same
        # initial weights, and Table III compares the orders alone.
        units = {
            unit.name: unit(config)
            for unit in (SharedEncodingUnit, MutualFusionUnit)
            if unit.name in config.units
        }
        self.units = nn.ModuleList(units[name] for name in config.units)

    def forward(self, tokens: Tokens, local: Tokens) -> Tokens:
        """Global tokens (B, D) and local tokens (B, N, D) to the next global tokens."""
        for unit in self.units:
            tokens, local = unit(tokens, local)
        return tokens  # the local tokens as SEU encoded them end here


class DualAttentionMutualFusion(nn.Module):
    """DMF (Fig. 2): LRU brings both branches to one width, and L stacked HTMs fuse them.

    `widths` are the widths of the branches, D_c and D_t, by branch.
    """

    def __init__(self, config: FusionConfig, widths: dict[str, int]):
        super().__init__()
        self.refine = nn.ModuleDict()
        self.pool = nn.ModuleDict()
        for branch in BRANCHES:
            self.refine[branch] = LocalRefinementUnit(widths[branch], config.dim, config.kernel)
            self.pool[branch] = POOLING[config.pooling]()
        depth = config.depth if config.units else 0  # without units there is LRU alone
        self.stack = nn.ModuleList(HeterogeneousTransmissionModule(config) for _ in range(depth))

    def forward(self, local: Tokens) -> tuple[Tokens, Tokens]:
        """Maps X_c (B, D_c, H_c, W_c) and X_t (B, D_t, H_t, W_t) to f'_0 and f'_L, (B, D) each.

        f'_0 are the refined tokens, f'_L the fused ones. Without an HTM (L = 0) they are the same.
        """
        refined = {}
        patches = {}
        for branch in BRANCHES:
            x = self.refine[branch](local[branch])  # F: (B, D, H, W)
            refined[branch] = self.pool[branch](x)  # f'_0: (B, D)
            patches[branch] = rearrange(x, "b d h w -> b (h w) d")  # (B, N, D)
        tokens = refined
        for htm in self.stack:
            tokens = htm(tokens, patches)  # f'_k from f'_k-1, and always the same local tokens
        return refined, tokens
