"""Device, worker processes and determinism."""

import os
from typing import TypeVar

import torch
from torch import nn

from deeplab_bench.runtime import distributed

Network = TypeVar("Network", bound=nn.Module)


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_model(model: Network) -> Network:
    """Move the model to the device, in evaluation mode and channels-last memory."""
    return model.to(pick_device()).to(memory_format=torch.channels_last).eval()


def count_default_workers(device: torch.device) -> int:
    """Return the number of worker processes that make batches.

    On a CPU it is 1, since more workers would take cores from training.
    """
    cpus = len(os.sched_getaffinity(0)) // distributed.local_world_size()
    return max(1, min(8, cpus)) if device.type == "cuda" else 1


def make_deterministic(seed: int) -> None:
    """Make results the same bit for bit for the same seed on the same machine."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
