"""Checkpoints as the authors' released code writes them, made from our models."""

from __future__ import annotations

import torch

from fusionreid.models.released import released_name


def released_tensors(model) -> dict[str, torch.Tensor]:
    """The model's tensors by the released code's names. SEU's q, k and v are one tensor there."""
    tensors = {}
    for name, value in model.state_dict().items():
        tensors[released_name(name, model.config.fusion)] = value
    for name in list(tensors):
        if ".SEU" in name and ".attn.q." in name:
            q, k, v = (tensors.pop(name.replace(".q.", f".{part}.")) for part in "qkv")
            tensors[name.replace(".q.", ".qkv.")] = torch.cat([q, k, v])
    return tensors
