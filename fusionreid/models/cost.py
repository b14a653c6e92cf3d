"""Parameters and multiply-adds, to the paper's convention and in full (Tables II to VI).

The paper's "FLOPs" are the multiply-adds of convolutions and linear layers for one image, without
the matrix products inside attention. Its "Params" are those of convolutions, linear layers, norms
(the necks' too) and PReLUs that run in evaluation: not those of classifiers, class token, position
and camera embeddings, and GeM exponents.
"""

from dataclasses import dataclass
from functools import cache
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from ..config import ModelConfig
from .fusionreid import FusionReID, build_model

COUNTED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.PReLU)


@dataclass(frozen=True)
class Cost:
    """What one image costs in evaluation.

    Attributes:
        parameters, macs: to the paper's convention.
        all_parameters: every parameter of the model but the classifiers'.
        attention_macs: the products of queries with keys, and of weights with values, which the
            paper leaves out.
    """

    parameters: int
    macs: int
    all_parameters: int
    attention_macs: int


@cache
def measure(config: ModelConfig) -> Cost:
    """The cost of a configuration, by a model on the `meta` device: it has shapes, no numbers."""
    with torch.device("meta"):
        return measure_model(build_model(config, num_classes=2, num_cameras=1))


@torch.no_grad()
def measure_model(model: FusionReID) -> Cost:
    """The cost of a model, by hooks on its layers while one image goes through."""
    macs = 0
    attention_macs = 0

    def count_layer(layer, inputs, output):
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            macs += layer.weight.numel() * output.shape[2:].numel()  # (1, channels, H, W)
        if isinstance(layer, nn.Linear):
            macs += layer.weight.numel() * output.shape[:-1].numel()  # (1, ..., channels)

    attend = F.scaled_dot_product_attention

    def count_attention(query, key, value, *args, **options):
        nonlocal attention_macs
        pairs = query.shape[:-1].numel() * key.shape[-2]  # of a query and a key, in all heads
        attention_macs += pairs * (query.shape[-1] + value.shape[-1])
        return attend(query, key, value, *args, **options)

    image = torch.zeros(1, 3, *model.config.image_size, device=next(model.parameters()).device)
    counted_attention = mock.patch.object(F, "scaled_dot_product_attention", count_attention)
    with register_module_forward_hook(count_layer), counted_attention:
        model.eval()(image)

    classifiers = {neck.classifier.weight for neck in model.necks.values()}
    layers = [module for module in model.modules() if isinstance(module, COUNTED)]
    counted = {parameter for layer in layers for parameter in layer.parameters()}
    return Cost(
        parameters=sum(parameter.numel() for parameter in counted - classifiers),
        macs=macs,
        all_parameters=sum(parameter.numel() for parameter in {*model.parameters()} - classifiers),
        attention_macs=attention_macs,
    )
