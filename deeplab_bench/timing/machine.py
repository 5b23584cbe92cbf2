"""The machine that a time belongs to: its device, memory, clocks and driver."""

import re
import resource
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import torch

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.environment import describe_environment, get_device_name
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


def fingerprint(device: torch.device) -> dict[str, Any]:
    """Return ``environment`` with the versions of driver and cuDNN; None if they are unknown."""
    driver = _query_nvidia_smi(device, "driver_version") if device.type == "cuda" else None
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
    return describe_environment(device) | {"driver": driver, "cudnn": cudnn}


def read_clocks_mhz(device: torch.device) -> dict[str, float | None]:
    """Read the current clock of the processor and, if it is the device, of the GPU.

    None if it is unknown.
    """
    gpu = _query_nvidia_smi(device, "clocks.sm") if device.type == "cuda" else None
    return {"cpu": _read_cpu_clock_mhz(), "gpu": None if gpu is None else float(gpu)}


def _read_cpu_clock_mhz() -> float | None:
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return round(float(np.median(clocks)), 1) if clocks else None


def _query_nvidia_smi(device: torch.device, field: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    identifier = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={identifier}", f"--query-gpu={field}"]
    done = subprocess.run(
        [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
