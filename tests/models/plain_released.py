"""The released model's arithmetic, written a second time, without our modules.

`features(tensors, images, cameras)` is proved against the released default's reference numbers.
Then it is itself the reference for the variants that have none. It follows the paper's Sec. III,
with the differences of the released code. What the tensors do not tell (the stride of the patches,
the order of the units, heads) is given.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


class Tensors(dict):
    """Tensors by name; `below("a.b")` is the part under that name."""

    def below(self, prefix: str) -> Tensors:
        return Tensors(
            {
                name[len(prefix) + 1 :]: value
                for name, value in self.items()
                if name.startswith(prefix + ".")
            }
        )

    def count(self, prefix: str) -> int:
        return len({name.split(".")[0] for name in self.below(prefix)})


def linear(x, t):
    return F.linear(x, t["weight"], t.get("bias"))


def layer_norm(x, t, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], t["weight"], t["bias"], eps)


def batch_norm(x, t):
    return F.batch_norm(x, t["running_mean"], t["running_var"], t["weight"], t["bias"])


def gem(x, p):
    """(B, D, H, W) to (B, D); without an exponent, the mean."""
    return x.mean((2, 3)) if p is None else (x.clamp(min=1e-6) ** p).mean((2, 3)) ** (1 / p)


def attend(query, key, value, heads, scale=None):
    """Softmax attention of (B, M, D) to (B, N, D), head by head."""
    mixed = []
    for q, k, v in zip(
        query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True
    ):
        weights = torch.softmax(q @ k.transpose(1, 2) * (scale or q.shape[-1] ** -0.5), dim=-1)
        mixed.append(weights @ v)
    return torch.cat(mixed, dim=-1)


def self_attention(x, t, heads):
    return linear(attend(*linear(x, t.below("qkv")).chunk(3, -1), heads), t.below("proj"))


def mlp(x, t):
    return linear(F.gelu(linear(x, t.below("fc1"))), t.below("fc2"))


def block(x, t, heads, eps=1e-5):
    x = x + self_attention(layer_norm(x, t.below("norm1"), eps), t.below("attn"), heads)
    return x + mlp(layer_norm(x, t.below("norm2"), eps), t.below("mlp"))


def resnet(images, t):
    """No ReLU after the first BN, 2 x 2 max pool without padding, last stride 1."""
    x = F.max_pool2d(
        batch_norm(F.conv2d(images, t["conv1.weight"], stride=2, padding=3), t.below("bn1")), 2, 2
    )
    for layer, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
        for index in range(t.count(f"layer{layer}")):
            x = residual(x, t.below(f"layer{layer}.{index}"), stride if index == 0 else 1)
    return x


def residual(x, t, stride):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3, 1 x 1; the first 3 x 3 has the stride."""
    convolutions = 3 if "conv3.weight" in t else 2
    strided, y = 2 if convolutions == 3 else 1, x
    for i in range(1, convolutions + 1):
        weight = t[f"conv{i}.weight"]
        y = F.conv2d(y, weight, stride=stride if i == strided else 1, padding=weight.shape[-1] // 2)
        y = batch_norm(y, t.below(f"bn{i}"))
        y = y.relu() if i < convolutions else y
    if "downsample.0.weight" in t:
        x = batch_norm(
            F.conv2d(x, t["downsample.0.weight"], stride=stride), t.below("downsample.1")
        )
    return (x + y).relu()


def token_transformer(x, t):
    """T2T-ViT's token layer: one head, scaled by the input's width, the value is the skip."""
    query, key, value = linear(layer_norm(x, t.below("norm1")), t.below("attn.qkv")).chunk(3, -1)
    x = value + linear(
        attend(query, key, value, 1, scale=x.shape[-1] ** -0.5), t.below("attn.proj")
    )
    return x + mlp(layer_norm(x, t.below("norm2")), t.below("mlp"))


def tokens_to_token(images, t):
    size = images.shape[-2:]
    x = F.unfold(images, 7, padding=2, stride=4).transpose(1, 2)
    size = [(side + 4 - 7) // 4 + 1 for side in size]
    for name in ("attention1", "attention2"):
        x = token_transformer(x, t.below(name)).transpose(1, 2).unflatten(2, tuple(size))
        x = F.unfold(x, 3, padding=1, stride=2).transpose(1, 2)
        size = [(side - 1) // 2 + 1 for side in size]
    return linear(x, t.below("project")), tuple(size)


def transformer(images, cameras, t, stride, heads):
    """f_t (B, D) and X_t (B, D, H, W)."""
    if "tokens_to_token.project.weight" in t:
        (x, grid), eps = tokens_to_token(images, t.below("tokens_to_token")), 1e-5
    else:
        x = F.conv2d(
            images, t["patch_embed.proj.weight"], t["patch_embed.proj.bias"], stride=stride
        )
        grid, x, eps = tuple(x.shape[-2:]), x.flatten(2).transpose(1, 2), 1e-6
    x = (
        torch.cat([t["cls_token"].expand(len(x), -1, -1), x], dim=1)
        + t["pos_embed"]
        + 3.0 * t["sie_embed"][cameras]
    )
    for index in range(t.count("blocks")):
        x = block(x, t.below(f"blocks.{index}"), heads, eps)
    x = layer_norm(x, t.below("norm"), eps)
    return x[:, 0], x[:, 1:].transpose(1, 2).unflatten(2, grid)


def refine(x, t):
    weight = t["dwconv.weight"]
    x = F.conv2d(x, weight, t["dwconv.bias"], padding=weight.shape[-1] // 2, groups=len(weight))
    x = F.prelu(batch_norm(x, t.below("bn1")), t["act1.weight"])
    x = F.conv2d(x, t["ptconv.weight"], t["ptconv.bias"])
    return F.prelu(batch_norm(x, t.below("bn2")), t["act2.weight"])


def encode(token, local, t, heads):
    x = layer_norm(
        block(torch.cat([token[:, None], local], dim=1), t.below("blocks.0"), heads),
        t.below("norm"),
    )
    return x[:, 0], x[:, 1:]


def fuse(token, other, t, heads):
    """The query's own residual; the keys, not the values, are normalised."""
    t = t.below("blocks.0")
    query = linear(layer_norm(token, t.below("norm1"))[:, None], t.below("attn.q"))
    key, value = (
        linear(layer_norm(other, t.below("attn.norm")), t.below("attn.k")),
        linear(other, t.below("attn.v")),
    )
    token = token + linear(attend(query, key, value, heads)[:, 0], t.below("attn.proj"))
    return token + mlp(layer_norm(token, t.below("norm2")), t.below("mlp"))


def features(tensors, images, cameras, *, stride=12, units=("seu", "mfu"), vit_heads=12, heads=12):
    """The retrieval vector (B, sum of widths) of evaluation mode, before normalisation."""
    t, found, local = Tensors(tensors), [], []
    if "resnet.base.conv1.weight" in t:
        local.append(resnet(images, t.below("resnet.base")))
        found.append(gem(local[0], t["resnet.gap.p"]))
    if "transformer.base.cls_token" in t:
        token, patches = transformer(
            images, cameras, t.below("transformer.base"), stride, vit_heads
        )
        local.append(patches)
        found.append(token)
    if "res_LRU.ptconv.weight" not in t:
        return torch.cat(found, dim=1)
    local = [
        refine(x, t.below(name)) for x, name in zip(local, ("res_LRU", "former_LRU"), strict=True)
    ]
    tokens = [gem(x, t.get(f"{name}.p")) for x, name in zip(local, ("gap_r", "gap_f"), strict=True)]
    found += tokens
    local = [x.flatten(2).transpose(1, 2) for x in local]
    for index in range(t.count("HTM.blocks")):
        htm, seen = t.below(f"HTM.blocks.{index}"), local
        for unit in units:
            names = {"seu": ("SEU1", "SEU2", "SEU"), "mfu": ("MUF_RES", "MFU_FORMER", "MFU")}[unit]
            both = [htm.below(name if htm.below(name) else names[2]) for name in names[:2]]
            if unit == "seu":
                pairs = [encode(tokens[b], seen[b], both[b], heads) for b in (0, 1)]
                tokens, seen = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
            else:
                tokens = [fuse(tokens[b], seen[1 - b], both[b], heads) for b in (0, 1)]
    return torch.cat([*found, *tokens] if t.count("HTM.blocks") else found, dim=1)
