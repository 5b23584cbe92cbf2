"""Device, worker processes and determinism."""

import os
from typing import TypeVar

import torch
from torch import nn

from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.pins import get_determinism

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


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 is fast; other CPUs, and those pinned to AVX2, only emulate it."""
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def make_deterministic(seed: int) -> None:
    """Make results the same bit for bit for the same seed, as far as the process is pinned for.

    See ``settings.process.Process``. Algorithms on a CPU are deterministic in any case.
    """
    fixed = get_determinism() != "native" or not torch.cuda.is_available()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(fixed)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not fixed
    torch.backends.cudnn.allow_tf32 = not fixed
    torch.backends.cuda.matmul.allow_tf32 = not fixed
    torch.manual_seed(seed)
