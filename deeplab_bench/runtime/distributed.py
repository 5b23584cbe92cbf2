"""Several processes on one run, a GPU each, as ``torchrun`` starts them.

In one process alone everything here gives back what it is given.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Item = TypeVar("Item")


@contextmanager
def joined() -> Iterator[None]:
    """With the other processes, where ``torchrun`` started this one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Of this process; the first, 0, is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes_of_this_machine() -> int:
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_initialized() else 1


def mean(value: Tensor) -> Tensor:
    """Over the processes, element by element; no gradient flows through it."""
    if dist.is_initialized():
        value = value.detach().clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def total(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Over the processes, element by element."""
    return np.sum(gathered(counts), axis=0)


def gathered(item: Item) -> list[Item]:
    """Every process's, by rank."""
    items: list[Any] = [item] * processes()
    if dist.is_initialized():
        dist.all_gather_object(items, item)
    return items


def of_the_first(item: Item) -> Item:
    return gathered(item)[0]


def replicated(module: nn.Module) -> nn.Module:
    """The module over all processes, which share its gradients, their mean."""
    if not dist.is_initialized():
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Normalise by the statistics of the batches of all processes together."""
    if not dist.is_initialized():
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _synchronised(child))


def _synchronised(layer: nn.BatchNorm2d) -> nn.Module:
    if layer.weight.is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    other = SynchronisedBatchNorm(layer.num_features, layer.eps, layer.momentum)
    other.load_state_dict(layer.state_dict())
    other.weight, other.bias = layer.weight, layer.bias
    return other.train(layer.training)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """``nn.SyncBatchNorm``, which has no kernels for a CPU; every process has an equal share."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = _Sum.apply(values.mean(dim=(0, 2, 3))) / processes()
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().mean(dim=(0, 2, 3))) / processes()
        pixels = processes() * x.numel() / self.num_features
        unbiased = variance * pixels / (pixels - 1)
        for statistic, found in ((self.running_mean, mean), (self.running_var, unbiased)):
            statistic.lerp_(found.detach(), self.momentum)
        self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Over the processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
