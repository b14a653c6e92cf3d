"""T2T-ViT: names and sizes of the public one, its token module against a slow, obvious version."""

from __future__ import annotations

import json
import lzma
import math
from pathlib import Path

import pytest
import torch

from fusionreid.models.t2t_vit import T2TViT, TokenTransformer, sinusoid_table, soft_split_grids

SMALL = dict(embed_dim=64, depth=2, heads=2, token_dim=16)
TENSORS = json.loads(
    lzma.open(Path(__file__).parents[1] / "fixtures" / "checkpoint_tensors.json.xz").read()
)


def test_names_and_shapes_are_those_of_the_released_checkpoint():
    prefix = "transformer.base."
    expected = {
        n[len(prefix) :]: tuple(s)
        for n, s in TENSORS["t2t_vit_14_resnet101"].items()
        if n.startswith(prefix)
    }
    expected = {n: s for n, s in expected.items() if not n.startswith(("sie_embed", "head."))}
    with torch.device("meta"):
        assert {n: tuple(t.shape) for n, t in T2TViT((256, 128)).state_dict().items()} == expected


@pytest.mark.parametrize("image_size", [(256, 128), (384, 128), (64, 32), (96, 32), (100, 52)])
def test_grids_are_those_of_unfold(image_size):
    model = T2TViT(image_size, **SMALL)
    tokens = model.patch_embed(torch.randn(2, 3, *image_size))
    assert tokens.shape == (2, model.grid[0] * model.grid[1], 64)
    assert model.pos_embed.shape == (1, 1 + tokens.shape[1], 64)
    assert soft_split_grids((256, 128)) == [(64, 32), (32, 16), (16, 8)]


def test_token_transformer_equals_an_obvious_loop():
    layer, x = TokenTransformer(12, 4), torch.randn(2, 5, 12)
    rows = []
    for image in x:
        query, key, value = layer.attn.qkv(layer.norm1(image)).split(4, dim=-1)
        attended = torch.stack([(key @ q * 12**-0.5).softmax(0) @ value for q in query])
        y = value + layer.attn.proj(attended)
        rows.append(y + layer.mlp(layer.norm2(y)))
    torch.testing.assert_close(layer(x), torch.stack(rows))


def test_sinusoid_table_equals_an_obvious_loop():
    table = sinusoid_table(7, 6)
    for position in range(7):
        for column in range(6):
            angle = position / 10000 ** (2 * (column // 2) / 6)
            value = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[0, position, column].item() == pytest.approx(value, abs=1e-6)
