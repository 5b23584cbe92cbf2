"""Communication between the processes of a run that ``torchrun`` starts, one for each GPU.

Without ``torchrun`` there is one process. Every function then returns its argument or an equal
value.
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
def process_group() -> Iterator[None]:
    """Join the process group of ``torchrun``, if it started this process."""
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


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the index of this process. Process 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def local_world_size() -> int:
    """Return the number of processes on this machine."""
    return int(os.environ["LOCAL_WORLD_SIZE"]) if dist.is_initialized() else 1


def all_reduce_mean(value: Tensor) -> Tensor:
    """Average a tensor over the processes, element by element, without gradient."""
    if dist.is_initialized():
        value = value.detach().clone()
        dist.all_reduce(value)
        value = value / dist.get_world_size()
    return value


def all_reduce_sum(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum an array over the processes, element by element."""
    return np.sum(all_gather(counts), axis=0)


def all_gather(item: Item) -> list[Item]:
    """Collect the objects of all processes, ordered by rank."""
    items: list[Any] = [item] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(items, item)
    return items


def broadcast_object(item: Item) -> Item:
    """Return the object of process 0 in all processes."""
    return all_gather(item)[0]


def wrap_data_parallel(module: nn.Module) -> nn.Module:
    """Wrap a module so that its gradients are averaged over the processes."""
    if not dist.is_initialized():
        return module
    return DistributedDataParallel(module, broadcast_buffers=False, gradient_as_bucket_view=True)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make batch normalisation use the statistics of the whole batch of all processes."""
    if not dist.is_initialized():
        return
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _synchronise_layer(child))


def _synchronise_layer(layer: nn.BatchNorm2d) -> nn.Module:
    if layer.weight.is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    synchronised = SynchronisedBatchNorm(layer.num_features, layer.eps, layer.momentum)
    synchronised.load_state_dict(layer.state_dict())
    synchronised.weight, synchronised.bias = layer.weight, layer.bias
    return synchronised.train(layer.training)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """``nn.SyncBatchNorm`` for CPUs. All processes must have batches of the same size."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean = _Sum.apply(values.mean(dim=(0, 2, 3))) / world_size()
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().mean(dim=(0, 2, 3))) / world_size()
        pixels = world_size() * x.numel() / self.num_features
        unbiased = variance * pixels / (pixels - 1)
        for statistic, found in ((self.running_mean, mean), (self.running_var, unbiased)):
            statistic.lerp_(found.detach(), self.momentum)
        self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over the processes, both forward and backward."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)
