"""The machine and the software that a result or a timing comes from."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the versions that a timing belongs to."""
    return {
        "device": get_device_name(device),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(package) for package in ("torchvision", "numpy", "pillow")},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
    }


def get_device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
