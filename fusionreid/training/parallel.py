"""Training by several processes: one batch, one loss, one gradient."""

import accelerate
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather


def gather(tensor: Tensor, processes: int) -> Tensor:
    """(B / processes, ...) to (B, ...), in the order of the processes, with gradients: what one would have computed.

    Each process computes the whole loss, so a share's gradient is the sum of what all found.
    """
    return tensor if processes == 1 else torch.cat(all_gather(tensor.contiguous()))


def wrap(model: nn.Module, state: accelerate.PartialState, device: torch.device, compile: bool) -> nn.Module:
    """The model as training calls it: gradients, and on GPUs batch norms, over all processes; compiled if asked."""
    if state.num_processes > 1:
        if device.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's keeps the activation of its BatchNormAct2d
        model = nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    return torch.compile(model) if compile else model
