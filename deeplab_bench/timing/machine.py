"""The machine that a time belongs to: its device, memory and clocks."""

import re
import resource
import sys

import numpy as np
import torch

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.environment import get_device_name, query_nvidia_smi
from deeplab_bench.runtime.pins import CPUINFO

MEBIBYTE = 2**20


class HardwareError(UserError):
    """The label in ``run.hardware`` does not fit this machine."""


def find_device(hardware: str) -> torch.device:
    """Return the device that a label of ``run.hardware`` means.

    Labels that begin with ``cpu`` mean the processor, all others the first GPU. Every other word of
    the label must be a part of the device's name, as in ``cpu_epyc`` or ``h100``.

    Raises:
        HardwareError: there is no GPU, or the name does not fit.
    """
    if hardware.startswith("cpu"):
        device = torch.device("cpu")
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    else:
        raise HardwareError(
            f"run.hardware names {hardware!r}, but this machine has no GPU: use 'cpu', or run on a "
            "machine with a GPU"
        )
    name = get_device_name(device)
    for word in set(re.split(r"[_.]", hardware)) - {"cpu", "gpu"}:
        if word.lower() not in name.lower():
            raise HardwareError(
                f"run.hardware names {hardware!r}, but the device here is {name!r}: use "
                f"{device.type.replace('cuda', 'gpu')!r} or a word of that name, or run on another "
                "machine"
            )
    return device


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def read_peak_memory_mib(device: torch.device) -> float:
    """Return the peak of torch's allocator on a GPU since the reset.

    On a CPU it is the peak of the whole process since its start, which cannot be reset.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def read_clocks_mhz(device: torch.device) -> dict[str, float | None]:
    """Read the current clock of the processor and, if it is the device, of the GPU.

    None if it is unknown.
    """
    gpu = query_nvidia_smi(device, "clocks.sm") if device.type == "cuda" else None
    return {"cpu": _read_cpu_clock_mhz(), "gpu": None if gpu is None else float(gpu)}


def _read_cpu_clock_mhz() -> float | None:
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return round(float(np.median(clocks)), 1) if clocks else None
