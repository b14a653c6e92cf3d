"""Attention weights of SEU and MFU (Sec. IV.E, Fig. 8 and 9), read by hooks from the pass that gives the features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from einops import rearrange
from torch import Tensor, nn

from ..models.fusion import BRANCHES, OTHER
from ..models.fusionreid import FusionReID

AttentionKey = tuple[int, str, str]  # (layer from 1, "seu" or "mfu", branch)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients of parameters; afterwards each module and parameter is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad in wanted:
            parameter.requires_grad_(requires_grad)


@contextmanager
def record_attention(model: FusionReID) -> Iterator[dict[AttentionKey, Tensor]]:
    """Records, inside, the attention weights of every forward pass; the last pass is what is kept.

    Yields:
        (layer, unit, branch) -> (B, heads, h, w): weights of the branch's global token to local tokens, on their own
        grid. In "seu" these are the branch's own, in "mfu" the other branch's (Eqs. 6, 7). MFU's sum to 1; SEU's to
        less, as the global token also attends to itself.

    Raises:
        ValueError: the model has no HTM.
    """
    if model.fusion is None or not len(model.fusion.stack):
        raise ValueError("attention maps: expected a model with HTMs (FusionConfig.units), found none")
    grids, maps, handles = model.grids, {}, []

    def reader(layer: int, unit: str, branches: list[str]) -> Callable:
        turn = 0

        def read(attention: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal turn
            branch = branches[turn % len(branches)]  # a shared unit serves the branches in turn
            turn += 1
            with torch.no_grad():
                weights = attention.weights(*inputs)
            if unit == "seu":
                weights = weights[:, :, 0, 1:]  # from the global token, to the local ones
            height, _ = grids[branch if unit == "seu" else OTHER[branch]]
            maps[layer, unit, branch] = rearrange(weights.float(), "b heads (h w) -> b heads h w", h=height)

        return read

    try:
        for layer, htm in enumerate(model.fusion.stack, start=1):
            for unit, units in (("seu", htm.seu), ("mfu", htm.mfu)):
                for module in dict.fromkeys(units.values()) if units is not None else ():
                    served = [branch for branch in BRANCHES if units[branch] is module]
                    handles.append(module.attention.register_forward_pre_hook(reader(layer, unit, served)))
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def attention_maps(model: FusionReID, images: Tensor, cameras: Tensor | None = None) -> dict[AttentionKey, Tensor]:
    """Attention of the global tokens in every SEU and MFU, from the pass that also gives the features.

    Images (B, 3, H, W), normalised, and cameras (B,) or None, to the maps that `record_attention` yields.
    """
    with evaluating(model), torch.no_grad(), record_attention(model) as maps:
        model(images, cameras)
    return maps
