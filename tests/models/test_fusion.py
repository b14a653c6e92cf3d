"""DMF: each unit against its equations, written slowly; sharing, order, and what moves on."""

import pytest
import torch
from torch import nn

from fusionreid import FusionConfig
from fusionreid.models.fusion import (
    BRANCHES,
    FUSION_BLOCKS,
    GAP,
    OTHER,
    Attention,
    DualAttentionMutualFusion,
    EncodingBlock,
    GeM,
    HeterogeneousTransmissionModule,
    LocalRefinementUnit,
    MutualFusionUnit,
    SharedEncodingUnit,
)

WIDTHS = {"cnn": 32, "transformer": 16}


def seeded(make, *args):
    """A module with the initial weights of seed 0."""
    torch.manual_seed(0)
    return make(*args)


def tokens_and_local(batch=3, dim=24):
    """Global tokens (B, D), and local tokens (B, N, D) of two different N."""
    generator = torch.Generator().manual_seed(1)
    tokens = {branch: torch.randn(batch, dim, generator=generator) for branch in BRANCHES}
    local = {
        "cnn": torch.randn(batch, 8, dim, generator=generator),
        "transformer": torch.randn(batch, 15, dim, generator=generator),
    }
    return tokens, local


def test_pooling_equals_an_obvious_loop():
    x = torch.randn(2, 3, 4, 5)
    gem = GeM()
    for image in range(2):
        for channel in range(3):
            places = x[image, channel].flatten()
            cubes = [max(float(value), 1e-6) ** 3 for value in places]
            expected = (sum(cubes) / 20) ** (1 / 3)
            assert gem(x)[image, channel].item() == pytest.approx(expected, rel=1e-4)
            mean = sum(float(value) for value in places) / 20
            assert GAP()(x)[image, channel].item() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_local_refinement_equals_an_obvious_loop(kernel):
    lru = seeded(LocalRefinementUnit, 4, 6, kernel).eval()
    x = torch.randn(1, 4, 5, 3)
    margin = kernel // 2
    padded = nn.functional.pad(x, (margin,) * 4)
    middle = torch.empty_like(x)
    for channel in range(4):
        weight, bias = lru.depthwise.weight[channel, 0], lru.depthwise.bias[channel]
        for row in range(5):
            for column in range(3):
                window = padded[0, channel, row : row + kernel, column : column + kernel]
                middle[0, channel, row, column] = (window * weight).sum() + bias
    middle = lru.act1(lru.norm1(middle))
    expected = torch.empty(1, 6, 5, 3)
    for channel in range(6):
        weight, bias = lru.pointwise.weight[channel, :, 0, 0], lru.pointwise.bias[channel]
        expected[0, channel] = (weight[:, None, None] * middle[0]).sum(dim=0) + bias
    torch.testing.assert_close(lru(x), lru.act2(lru.norm2(expected)))


@pytest.mark.parametrize("number", [5, 1])
def test_attention_equals_an_obvious_loop(number):
    query, context = torch.randn(2, number, 12), torch.randn(2, 7, 12)
    norm = nn.LayerNorm(12)
    attention = seeded(Attention, 12, 3, norm)
    q, k, v = attention.q(query), attention.k(norm(context)), attention.v(context)
    mixed, weights = torch.empty_like(q), torch.empty(2, 3, number, 7)
    for image in range(2):
        for head in range(3):
            columns = slice(4 * head, 4 * head + 4)
            for row in range(number):
                products = k[image, :, columns] @ q[image, row, columns] / 4**0.5
                weights[image, head, row] = products.softmax(0)
                mixed[image, row, columns] = weights[image, head, row] @ v[image, :, columns]
    torch.testing.assert_close(attention(query, context), attention.proj(mixed))
    torch.testing.assert_close(attention.weights(query, context), weights)
    assert all(linear.bias is None for linear in (attention.q, attention.k, attention.v))


@pytest.mark.parametrize("seu_norm", [False, True])
def test_shared_encoding_equals_its_equations(seu_norm):
    block = seeded(EncodingBlock, FusionConfig(dim=24, seu_norm=seu_norm))
    tokens, local = tokens_and_local()
    x = torch.cat([tokens["cnn"][:, None], local["cnn"]], dim=1)
    s_hat = block.attention(block.norm1(x), block.norm1(x)) + x  # Eq. 3
    s = block.ffn(block.norm2(s_hat)) + s_hat  # Eq. 4
    if seu_norm:
        s = nn.functional.layer_norm(s, (24,), block.norm.weight, block.norm.bias)
    token_found, local_found = block(tokens["cnn"], local["cnn"])  # Eq. 5
    torch.testing.assert_close(token_found, s[:, 0])
    torch.testing.assert_close(local_found, s[:, 1:])


@pytest.mark.parametrize("residual", ["query", "attention"])
def test_mutual_fusion_equals_its_equations(residual):
    config = FusionConfig(dim=24, mfu_residual=residual)
    block = seeded(FUSION_BLOCKS[residual], config)
    tokens, local = tokens_and_local()
    token, other = tokens["cnn"], local["transformer"]
    if residual == "query":
        f = token + block.attention(block.norm1(token)[:, None], other)[:, 0]
        expected = f + block.ffn(block.norm2(f))
        assert isinstance(block.attention.key_norm, nn.LayerNorm)
    else:
        m = block.attention(token[:, None], other)[:, 0]
        expected = block.ffn(m) + m
        assert isinstance(block.attention.key_norm, nn.Identity)
    torch.testing.assert_close(block(token, other), expected)


def test_units_take_each_branch_through_its_block():
    tokens, local = tokens_and_local()
    seu = seeded(SharedEncodingUnit, FusionConfig(dim=24, share_seu=False))
    mfu = seeded(MutualFusionUnit, FusionConfig(dim=24))
    assert (seu.name, mfu.name) == ("seu", "mfu")
    encoded, encoded_local = seu(tokens, local)
    fused, same_local = mfu(tokens, local)
    assert same_local is local
    for branch in BRANCHES:
        s_g, s_l = seu[branch](tokens[branch], local[branch])
        assert torch.equal(encoded[branch], s_g)
        assert torch.equal(encoded_local[branch], s_l)
        assert torch.equal(fused[branch], mfu[branch](tokens[branch], local[OTHER[branch]]))


@pytest.mark.parametrize("share", [True, False])
def test_sharing_is_the_same_object_twice(share):
    config = FusionConfig(dim=24, share_seu=share, share_mfu=share)
    htm = HeterogeneousTransmissionModule(config)
    assert [unit.name for unit in htm.units] == ["seu", "mfu"]
    for unit in htm.units:
        assert (unit["cnn"] is unit["transformer"]) is share


@pytest.mark.parametrize("units", [("seu", "mfu"), ("mfu", "seu"), ("seu",), ("mfu",)])
def test_units_run_in_the_order_of_the_configuration(units):
    htm = seeded(HeterogeneousTransmissionModule, FusionConfig(dim=24, units=units))
    assert tuple(unit.name for unit in htm.units) == units
    tokens, local = tokens_and_local()
    found = htm(tokens, local)
    for unit in htm.units:
        tokens, local = unit(tokens, local)
    for branch in BRANCHES:
        assert torch.equal(found[branch], tokens[branch])


def test_both_orders_start_from_the_same_weights():
    first = seeded(HeterogeneousTransmissionModule, FusionConfig(dim=24, units=("seu", "mfu")))
    second = seeded(HeterogeneousTransmissionModule, FusionConfig(dim=24, units=("mfu", "seu")))
    for unit, other in zip(first.units, reversed(second.units), strict=True):
        assert unit.name == other.name
        for weight, other_weight in zip(unit.parameters(), other.parameters(), strict=True):
            assert torch.equal(weight, other_weight)


def test_only_the_global_token_moves_on():
    fusion = seeded(DualAttentionMutualFusion, FusionConfig(dim=24, depth=2), WIDTHS)
    inputs = []
    for htm in fusion.stack:
        htm.register_forward_pre_hook(lambda module, given: inputs.append(given))
    fusion({"cnn": torch.randn(2, 32, 4, 2), "transformer": torch.randn(2, 16, 5, 3)})
    (first_tokens, first_local), (second_tokens, second_local) = inputs
    for branch in BRANCHES:
        assert first_local[branch] is second_local[branch]
        assert not torch.equal(first_tokens[branch], second_tokens[branch])


def test_without_units_the_refined_tokens_are_all():
    fusion = seeded(DualAttentionMutualFusion, FusionConfig(dim=24, units=()), WIDTHS)
    maps = {"cnn": torch.randn(2, 32, 4, 2), "transformer": torch.randn(2, 16, 5, 3)}
    refined, fused = fusion(maps)
    assert len(fusion.stack) == 0
    for branch in BRANCHES:
        assert refined[branch].shape == (2, 24)
        assert fused[branch] is refined[branch]


@pytest.mark.parametrize("residual", ["query", "attention"])
def test_fused_tokens_differ_between_images_from_the_start_whatever_the_width(residual):
    """Initial weights that shrink the fused tokens hide them behind the necks' epsilon, 1e-5."""
    spreads = {}
    for dim in (48, 96, 768):
        config = FusionConfig(dim=dim, mfu_residual=residual)
        fusion = seeded(DualAttentionMutualFusion, config, {"cnn": 96, "transformer": 64})
        local = {"cnn": torch.randn(16, 96, 8, 4), "transformer": torch.randn(16, 64, 7, 3)}
        local = {branch: x + torch.randn(16, x.shape[1], 1, 1) for branch, x in local.items()}
        with torch.no_grad():  # batch norms by the batch, as in the first step of training
            _, fused = fusion(local)
        spreads[dim] = min(token.std(dim=0).mean().item() for token in fused.values())
    assert min(spreads.values()) > 0.01
    assert max(spreads.values()) < 2 * min(spreads.values())
