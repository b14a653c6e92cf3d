"""Half precision stays within a stated distance of float32."""

import numpy as np
import pytest
import torch

from fusionreid import build_model, embed
from fusionreid.config import PAPER, profile
from fusionreid.devices import autocast
from fusionreid.training.losses import PaperObjective

MODEL = profile("smoke").scale(PAPER)
DISTANCE = {"bf16": 2e-2, "fp16": 3e-3}  # bf16 keeps 8 bits of a number, fp16 keeps 11


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(MODEL, 4, 6).eval()


@pytest.mark.parametrize("precision", DISTANCE)
def test_vectors_in_half_precision(model, precision):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, *MODEL.image_size), dtype=np.uint8)
    full, half = embed(model, images), embed(model, images, precision=precision)
    assert half.dtype == np.float32
    distance = np.linalg.norm(full - half, axis=1)  # of vectors of length 1
    assert 0 < distance.max() < DISTANCE[precision]


def test_losses_in_bf16(model):
    images = torch.randn(8, 3, *MODEL.image_size, generator=torch.Generator().manual_seed(0))
    identities = torch.arange(8) // 2
    losses = []
    for precision in ("float32", "bf16"):
        torch.manual_seed(0)
        with autocast("cpu", precision):
            output = model.train()(images)
        terms = PaperObjective(4, profile("smoke").train)(output, identities)
        loss = sum(terms.values())
        assert loss.dtype == torch.float32 and all(term.isfinite() for term in terms.values())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)
