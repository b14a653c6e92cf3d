"""Training by several processes: one batch, one loss, one gradient."""

import os
from datetime import timedelta

import accelerate
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from .devices import default_device

# How long processes wait for the first one, which alone renders, decodes and writes.
PATIENCE = timedelta(hours=6)


def start(device: str | torch.device | None = None) -> tuple[accelerate.PartialState, torch.device]:
    """The processes that were launched together, often this one alone, and the device of this one."""
    device = torch.device(device or default_device())
    if (
        "RANK" in os.environ and not dist.is_initialized()
    ):  # forked by a notebook, whose own state it would inherit
        accelerate.PartialState._reset_state()
    state = accelerate.PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    return (
        state,
        state.device if state.num_processes > 1 else device,
    )  # alone, its state may be of another device


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


def wrap(
    model: nn.Module, state: accelerate.PartialState, device: torch.device, compile: bool
) -> nn.Module:
    """The model as training calls it: its gradients are those of all processes; compiled if asked.

    On GPUs batch norms see the whole batch; on CPUs, for which torch has none that do, each process normalises its own.
    """
    if state.num_processes > 1:
        if device.type == "cuda":
            model = convert_sync_batchnorm(
                model
            )  # timm's keeps the activation of its BatchNormAct2d
        model = nn.parallel.DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None
        )
    return torch.compile(model) if compile else model


def share_buffers(model: nn.Module, processes: int) -> None:
    """Gives all processes the first one's running statistics, which are saved; on a CPU each has its own till then."""
    for buffer in model.buffers() if processes > 1 else ():
        dist.broadcast(buffer, 0)
