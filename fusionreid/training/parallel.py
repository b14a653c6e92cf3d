"""Training by several processes: one batch, one loss, one gradient."""

import accelerate
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn


class _Gather(torch.autograd.Function):
    """The batch of all processes. Each computes the whole loss, so a share's gradient is the sum of what all found."""

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(tensor: Tensor, processes: int) -> Tensor:
    """(B / processes, ...) to (B, ...), in the order of the processes, with gradients: what one would have computed."""
    return tensor if processes == 1 else _Gather.apply(tensor.contiguous())


def wrap(model: nn.Module, state: accelerate.PartialState, device: torch.device, compile: bool) -> nn.Module:
    """The model as training calls it: gradients, and on GPUs batch norms, over all processes; compiled if asked."""
    if state.num_processes > 1:
        if device.type == "cuda":
            model = convert_sync_batchnorm(model)  # timm's keeps the activation of its BatchNormAct2d
        model = nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)
    return torch.compile(model) if compile else model
