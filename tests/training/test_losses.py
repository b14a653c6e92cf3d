"""The losses against slow, obvious loops and against the released code's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fusionreid import build_model
from fusionreid.config import PAPER, TrainConfig, profile
from fusionreid.devices import autocast
from fusionreid.models.fusionreid import Output
from fusionreid.training.losses import PaperObjective, triplet

RELEASED = np.load(Path(__file__).parents[1] / "fixtures/losses_and_schedule.npz")


def slow_triplet(features, identities, squared):
    total = 0.0
    for i, anchor in enumerate(features):
        distance = [float(((anchor - other) ** 2).sum()) for other in features]
        distance = distance if squared else [d**0.5 for d in distance]
        same = [identities[j] == identities[i] for j in range(len(features))]
        positive = max(d for d, s in zip(distance, same, strict=True) if s)
        negative = min(d for d, s in zip(distance, same, strict=True) if not s)
        total += np.log1p(np.exp(positive - negative))
    return total / len(features)


@pytest.mark.parametrize("distance", ["euclidean", "squared"])
@pytest.mark.parametrize("identities", [[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 1, 5], [3, 3, 3, 3, 3, 4]])
def test_triplet_is_the_slow_loop(distance, identities):
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    expected = slow_triplet(features.double(), identities, distance == "squared")
    assert float(triplet(features, torch.tensor(identities), distance)) == pytest.approx(
        expected, rel=1e-5
    )


def test_triplet_of_the_released_code():
    features = torch.tensor(RELEASED["triplet_features"], requires_grad=True)
    loss = triplet(features, torch.tensor(RELEASED["triplet_labels"]))
    loss.backward()
    assert loss.item() == pytest.approx(float(RELEASED["triplet_loss"]), rel=1e-6)
    assert torch.allclose(features.grad, torch.tensor(RELEASED["triplet_grad"]), atol=1e-7)


def test_identical_features_have_a_finite_gradient():
    features = torch.ones(4, 8, requires_grad=True)
    triplet(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


def test_half_precision_features_are_ranked_in_float32():
    features = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)).bfloat16()
    identities = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert triplet(features, identities).item() == pytest.approx(
        triplet(features.float(), identities).item(), rel=1e-6
    )


def test_one_identity_is_an_error():
    with pytest.raises(ValueError, match="holds only identity 7"):
        triplet(torch.randn(4, 2), torch.full((4,), 7))


def test_cross_entropy_is_the_slow_loop_and_the_released_code():
    features = {"cnn": torch.randn(len(RELEASED["ce_targets"]), 2)}
    logits, targets = torch.tensor(RELEASED["ce_logits"]), torch.tensor(RELEASED["ce_targets"])
    total = 0.0
    for row, target in zip(logits.double(), targets, strict=True):
        log_probability = row - row.exp().sum().log()
        wanted = torch.full_like(row, 0.1 / len(row))
        wanted[target] += 0.9
        total -= float((wanted * log_probability).sum())
    objective = PaperObjective(logits.shape[1], TrainConfig())
    found = objective(Output(features, {"cnn": logits}), targets)["cross_entropy/cnn"].item()
    assert found == pytest.approx(total / len(logits), rel=1e-6)
    assert found == pytest.approx(float(RELEASED["ce_loss"]), rel=1e-6)


def test_the_objective_has_two_losses_of_each_feature():
    features = {"cnn": torch.randn(4, 8), "transformer": torch.randn(4, 6)}
    logits = {name: torch.randn(4, 3) for name in features}
    identities = torch.tensor([0, 0, 1, 1])
    terms = PaperObjective(3, TrainConfig())(Output(features, logits), identities)
    assert list(terms) == [
        "cross_entropy/cnn",
        "triplet/cnn",
        "cross_entropy/transformer",
        "triplet/transformer",
    ]
    by_hand = [cross_entropy(logits[name], identities, label_smoothing=0.1) for name in features]
    by_hand += [triplet(features[name], identities) for name in features]
    total = sum(terms.values()).item()
    assert total == pytest.approx(sum(by_hand).item(), rel=1e-6)


def test_losses_in_bf16_are_near_those_in_float32():
    torch.manual_seed(0)
    smoke = profile("smoke")
    config = smoke.scale(PAPER)
    model = build_model(config, 4, 6).train()
    images = torch.randn(8, 3, *config.image_size, generator=torch.Generator().manual_seed(0))
    identities = torch.arange(8) // 2
    losses = []
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        with autocast("cpu", precision):
            output = model(images)
        terms = PaperObjective(4, smoke.train)(output, identities)
        loss = sum(terms.values())
        assert loss.dtype == torch.float32 and all(term.isfinite() for term in terms.values())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
