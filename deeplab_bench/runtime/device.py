"""Where and how torch computes."""

import os

import torch

from deeplab_bench.runtime import distributed


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def default_workers(device: torch.device) -> int:
    """Processes that make batches; on a CPU one suffices, and more would take cores from it."""
    cpus = len(os.sched_getaffinity(0)) // distributed.processes_of_this_machine()
    return max(1, min(8, cpus)) if device.type == "cuda" else 1


def make_deterministic(seed: int) -> None:
    """Same seed, same machine, same bits."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(seed)
