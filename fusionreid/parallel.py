"""Several processes that work as one: one batch, one loss, one gradient."""

import os
from datetime import timedelta

import accelerate
import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from .devices import default_device

# One process renders, decodes or writes. The others wait for it as long as this.
PATIENCE = timedelta(hours=6)


def start(device: str | torch.device | None = None) -> tuple[accelerate.PartialState, torch.device]:
    """The state of the processes that were launched together, and the device of this process.

    Most often this process is the only one.
    """
    device = torch.device(device or default_device())
    if "RANK" in os.environ and not dist.is_initialized():
        # A notebook's launcher forks. The new process must not keep the state of its parent.
        accelerate.PartialState._reset_state()
    state = accelerate.PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
    if state.num_processes > 1:
        device = state.device
    return state, device


class _Gather(torch.autograd.Function):
    """Joins the shares of all processes to the whole batch.

    Every process computes the whole loss from it. So the gradient of a share is the sum of the
    gradients that the processes have for it.
    """

    @staticmethod
    def forward(ctx, tensor: Tensor) -> Tensor:
        shares = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(shares, tensor)
        return torch.cat(shares)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(tensor: Tensor, processes: int) -> Tensor:
    """A share (B / processes, ...) to the whole (B, ...), in order of the ranks, with gradients."""
    if processes == 1:
        return tensor
    return _Gather.apply(tensor.contiguous())


def wrap(
    model: nn.Module, state: accelerate.PartialState, device: torch.device, compile: bool
) -> nn.Module:
    """The model as training calls it, with the gradients of all processes, and compiled if asked.

    On GPUs a batch norm sees the whole batch. On CPUs torch has no such batch norm, so each
    process normalises its own share.
    """
    if state.num_processes > 1:
        device_ids = None
        if device.type == "cuda":
            device_ids = [device]
            model = convert_sync_batchnorm(model)  # timm's keeps BatchNormAct2d's activation
        model = nn.parallel.DistributedDataParallel(model, device_ids=device_ids)
    return torch.compile(model) if compile else model


def share_buffers(model: nn.Module, processes: int) -> None:
    """Gives all processes the running statistics of the first one, which are those that are saved.

    On CPUs each process has its own statistics until then.
    """
    if processes > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)
