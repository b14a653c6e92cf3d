"""Parameters and multiply-adds, to the paper's convention and in full (Tables II to VI).

The paper's "FLOPs" are the multiply-adds of convolutions and linear layers for one image, without those inside
attention; its "Params" are those of convolutions, linear layers, norms (also the necks') and PReLUs that run in
evaluation: no classifiers, class token, position and camera embeddings, GeM exponents.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn

from ..config import ModelConfig
from .fusionreid import FusionReID, build_model

COUNTED = (nn.Conv2d, nn.Linear)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Cost:
    """What one image costs in evaluation."""

    parameters: int  # to the paper's convention, as `macs`
    macs: int
    all_parameters: int  # every parameter of the model, the classifiers' aside
    attention_macs: (
        int  # products of queries with keys, and of weights with values, which the paper leaves out
    )


@cache
def measure(config: ModelConfig) -> Cost:
    """The cost of a configuration. Nothing is allocated or multiplied: the model lives on the `meta` device."""
    with torch.device("meta"):
        return measure_model(build_model(config, num_classes=2, num_cameras=1))


@torch.no_grad()
def measure_model(model: FusionReID) -> Cost:
    """The cost of a model, by hooks on its layers during one forward pass of one image."""
    macs, attend = Counter(), F.scaled_dot_product_attention

    def count_layer(module, inputs, output):
        positions = (
            output.shape[2:].numel() if isinstance(module, nn.Conv2d) else output.shape[:-1].numel()
        )
        macs["layers"] += module.weight.numel() * positions

    def count_attention(query, key, value, *args, **options):
        macs["attention"] += (
            query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        )
        return attend(query, key, value, *args, **options)

    image = torch.zeros(1, 3, *model.config.image_size, device=next(model.parameters()).device)
    hooks = [
        module.register_forward_hook(count_layer)
        for module in model.modules()
        if isinstance(module, COUNTED)
    ]
    try:
        with mock.patch.object(F, "scaled_dot_product_attention", count_attention):
            model.eval()(image)
    finally:
        for hook in hooks:
            hook.remove()
    everything = set(model.parameters()) - {neck.classifier.weight for neck in model.necks.values()}
    counted = {p for m in model.modules() if isinstance(m, COUNTED + NORMS) for p in m.parameters()}
    return Cost(
        parameters=sum(p.numel() for p in counted & everything), macs=macs["layers"],
        all_parameters=sum(p.numel() for p in everything), attention_macs=macs["attention"],
    )  # fmt: skip
