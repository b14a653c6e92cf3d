"""Parameters and multiply-adds, to the paper's convention and in full (Tables II to VI).

The paper's "FLOPs" are the multiply-adds of convolutions and linear layers for one image, without the products inside
attention; its "Params" are those of convolutions, linear layers, norms and PReLUs that run in evaluation, the
necks among them, without classifiers, class token, position and camera embeddings and GeM exponents.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ModelConfig
from .fusion import CrossAttention
from .fusionreid import FusionReID, build_model

COUNTED = (nn.Conv2d, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Cost:
    """What one image costs in evaluation.

    Attributes:
        parameters, macs: to the paper's convention.
        all_parameters: every parameter of the model, the classifiers' aside.
        attention_macs: the products of queries with keys and of weights with values, which the paper leaves out.
        folded_macs: `macs` plus `attention_macs` when MFU computes with folded projections (see `CrossAttention`).
    """

    parameters: int
    macs: int
    all_parameters: int
    attention_macs: int
    folded_macs: int


@cache
def measure(config: ModelConfig) -> Cost:
    """The cost of a configuration. Nothing is allocated or multiplied: the model lives on the `meta` device."""
    with torch.device("meta"):
        model = build_model(config, num_classes=2, num_cameras=1).eval()
    return measure_model(model)


@torch.no_grad()
def measure_model(model: FusionReID) -> Cost:
    """The cost of a model, by hooks on its layers during one forward of one image."""
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *model.config.image_size, device=device)
    counter = {"macs": 0, "attention": 0, "folded": 0}
    handles = [
        module.register_forward_hook(_layer_hook(counter)) for module in model.modules() if isinstance(module, COUNTED)
    ]
    handles += [
        module.register_forward_hook(_folding_hook(counter))
        for module in model.modules()
        if isinstance(module, CrossAttention)
    ]
    try:
        with _count_attention(counter), model.folded(False):
            model.eval()(image)
    finally:
        for handle in handles:
            handle.remove()
    classifiers = {id(parameter) for head in model.heads.values() for parameter in head.classifier.parameters()}
    counted = {id(p): p.numel() for m in model.modules() if isinstance(m, COUNTED + NORMS) for p in m.parameters()}
    everything = {id(p): p.numel() for p in model.parameters()}
    return Cost(
        parameters=sum(n for key, n in counted.items() if key not in classifiers),
        macs=counter["macs"],
        all_parameters=sum(n for key, n in everything.items() if key not in classifiers),
        attention_macs=counter["attention"],
        folded_macs=counter["macs"] + counter["attention"] - counter["folded"],
    )


def _layer_hook(counter):
    def hook(module, inputs, output):
        weight = module.weight
        positions = output.shape[2:].numel() if isinstance(module, nn.Conv2d) else output.numel() // output.shape[-1]
        counter["macs"] += weight.numel() * positions

    return hook


def _folding_hook(counter):
    """What folding saves: 2 N D^2 for keys and values and 2 N D for their products become 2 D^2 and 2 N D heads."""

    def hook(module, inputs, output):
        tokens, width = inputs[1].shape[1:]
        counter["folded"] += 2 * (tokens * width**2 + tokens * width) - 2 * (width**2 + tokens * width * module.heads)

    return hook


@contextmanager
def _count_attention(counter):
    attend = F.scaled_dot_product_attention

    def counted(query, key, value, *args, **kwargs):
        pairs = query.shape[:-1].numel() * key.shape[-2]
        counter["attention"] += pairs * (query.shape[-1] + value.shape[-1])
        return attend(query, key, value, *args, **kwargs)

    with mock.patch.object(F, "scaled_dot_product_attention", counted):
        yield
