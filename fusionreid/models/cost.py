"""Parameters and multiply-adds, to the paper's convention and in full (Tables II to VI).

The paper's "FLOPs" are the multiply-adds of convolutions and linear layers for one image, without the products inside
attention; its "Params" are those of convolutions, linear layers, norms and PReLUs that run in evaluation, the
necks among them, without classifiers, class token, position and camera embeddings and GeM exponents.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import ModelConfig
from .fusionreid import build_model

COUNTED = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Cost:
    """What one image costs in evaluation."""

    parameters: int  # to the paper's convention, as `macs`
    macs: int
    all_parameters: int  # every parameter of the model, the classifiers' aside
    attention_macs: int  # products of queries with keys, and of weights with values, which the paper leaves out


@cache
@torch.no_grad()
def measure(config: ModelConfig) -> Cost:
    """The cost of a configuration. Nothing is allocated or multiplied: the model lives on the `meta` device."""
    with torch.device("meta"):
        model = build_model(config, num_classes=2, num_cameras=1).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *config.image_size))
    # On this device attention is a pair of batched products, and nothing else is one. Two FLOPs are one multiply-add.
    attention = counter.get_flop_counts()["Global"].get(torch.ops.aten.bmm, 0)
    everything = set(model.parameters()) - {neck.classifier.weight for neck in model.necks.values()}
    counted = {p for m in model.modules() if isinstance(m, COUNTED) for p in m.parameters()}
    return Cost(
        parameters=sum(p.numel() for p in counted & everything),
        macs=(counter.get_total_flops() - attention) // 2,
        all_parameters=sum(p.numel() for p in everything),
        attention_macs=attention // 2,
    )
