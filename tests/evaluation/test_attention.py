"""Attention that is replaced by a mean is that of a slow loop, and leaves no trace; entropies are
those of the weights.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from fusionreid.config import PAPER, PROFILES
from fusionreid.evaluation import attention, explain
from fusionreid.evaluation.evaluate import evaluate
from fusionreid.models.fusion import Attention
from fusionreid.models.fusionreid import build_model

PLACES = ["all", "seu", "layer 1", "mfu", "layer 2"]
OWN = replace(PAPER, fusion=replace(PAPER.fusion, share_seu=False))


def tiny(config=PAPER):
    torch.manual_seed(0)
    return build_model(PROFILES["smoke"].scale(config), num_classes=4, num_cameras=6).eval()


@pytest.fixture(scope="module")
def model():
    return tiny()


def hooks(model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def features(model, records):
    images, cameras = explain.model_inputs(model, records)
    with torch.no_grad():
        return model(images, cameras).features


def test_a_mean_is_that_of_the_slow_loop():
    torch.manual_seed(0)
    module = Attention(12, heads=3, key_norm=torch.nn.LayerNorm(12))
    x, context = torch.randn(2, 4, 12), torch.randn(2, 5, 12)
    found = attention._plain_mean(module, (x, context), module(x, context))
    for image in range(2):
        values = [module.v(context[image, key]) for key in range(5)]
        for query in range(4):
            torch.testing.assert_close(found[image, query], module.proj(sum(values) / 5))


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("config", [PAPER, OWN], ids=["shared SEU", "own SEUs"])
def test_only_the_chosen_modules_are_replaced_and_no_trace_is_left(config, where, tiny_dataset):
    model = tiny(config)
    before = features(model, tiny_dataset.query)
    replaced = []
    with pytest.raises(RuntimeError), attention.attention_replaced_by_mean(model, where):
        for (layer, unit, _), module in explain.attention_modules(model).items():
            chosen = where in ("all", unit, f"layer {layer}")
            assert len(module._forward_hooks) == chosen  # one, where both branches share it
            replaced.append(chosen)
        inside = features(model, tiny_dataset.query)
        raise RuntimeError("stop")
    assert sum(replaced) == (8 if where == "all" else 4)
    after = features(model, tiny_dataset.query)
    assert hooks(model) == 0
    for name, vectors in before.items():
        assert torch.equal(after[name], vectors)
        assert torch.equal(inside[name], vectors) != name.endswith("fused"), name


def test_even_attention_is_a_mean_already(tiny_dataset):
    """Queries of zero have equal weights: an entropy of 1, and nothing changes when replaced."""
    model = tiny()
    for module in explain.attention_modules(model).values():
        torch.nn.init.zeros_(module.q.weight)
    before = features(model, tiny_dataset.query)
    with attention.attention_replaced_by_mean(model):
        inside = features(model, tiny_dataset.query)
    torch.testing.assert_close(inside, before)
    for row in attention.attention_entropy(model, tiny_dataset.query):
        assert row["entropy"] == pytest.approx(1)


def test_entropies_are_those_of_the_weights(model, tiny_dataset):
    torch.manual_seed(1)
    for module in explain.attention_modules(model).values():
        torch.nn.init.normal_(module.q.weight)  # so that heads differ
    state = torch.get_rng_state()
    rows = attention.attention_entropy(model.train(), tiny_dataset.query)
    assert torch.equal(torch.get_rng_state(), state) and model.training and hooks(model) == 0
    model.eval()
    images, cameras = explain.model_inputs(model, tiny_dataset.query)
    with torch.no_grad(), explain.record_attention(model) as maps:
        model(images, cameras)
    heads = model.config.fusion.heads
    assert len(rows) == 8 * heads
    for row in rows:
        weights = maps[row["layer"], row["unit"], row["branch"]][:, row["head"] - 1].flatten(1)
        shares = []
        for person in weights.tolist():
            if row["unit"] == "seu":
                person.append(1 - sum(person))
            entropy = -sum(weight * math.log(weight) for weight in person if weight > 0)
            shares.append(entropy / math.log(len(person)))
        assert row["entropy"] == pytest.approx(sum(shares) / len(shares), rel=1e-3)
    assert min(row["entropy"] for row in rows) < 0.95


def test_a_sample_is_spread_over_the_records(model, tiny_dataset, monkeypatch):
    seen = []
    inputs = attention.model_inputs
    monkeypatch.setattr(
        attention,
        "model_inputs",
        lambda model, records: (seen.append(records), inputs(model, records))[1],
    )
    monkeypatch.setattr(attention, "SAMPLE", 5)
    attention.attention_entropy(model, tiny_dataset.query)
    assert seen == [tiny_dataset.query[::3]] and len(seen[0]) == 4


def test_rankings_with_and_without(model, tiny_dataset, tmp_path):
    found = attention.evaluate_replaced(model, tiny_dataset, cache_directory=tmp_path)
    assert found["replaced"].unique().tolist() == ["nothing", *PLACES]
    assert found["feature"].unique().tolist() == ["all", "cnn_fused", "transformer_fused"]
    for where in ("nothing", "mfu"):
        with attention.attention_replaced_by_mean(model, where):
            rankings = evaluate(model, tiny_dataset, cache_directory=tmp_path)
        for feature, rows in found[found["replaced"] == where].groupby("feature"):
            ranking = rankings[feature]
            assert rows["mAP"].tolist() == (100 * ranking.average_precision).tolist()
            assert rows["rank-1"].mean() == pytest.approx(100 * ranking.rank(1))
            assert rows["person"].tolist() == [query.identity for query in tiny_dataset.query]
    means = found.groupby("replaced")["mAP"].mean()
    assert means["nothing"] != means["all"] != means["mfu"]


def test_without_htms_there_is_nothing_to_replace(model, tiny_dataset):
    for fusion in (None, replace(PAPER.fusion, units=())):
        plain = tiny(replace(PAPER, fusion=fusion))
        assert attention.attention_entropy(plain, tiny_dataset.query) == []
        assert attention.replaceable(plain) == {"nothing": set()}
    with (
        pytest.raises(ValueError, match="where='layer 3' is not known; it is one of: 'no"),
        attention.attention_replaced_by_mean(model, "layer 3"),
    ):
        pass
