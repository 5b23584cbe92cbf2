"""The machine and the software that a result or a timing comes from."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from typing import Any

import torch

from deeplab_bench.runtime.pins import get_determinism, read_cpuinfo

# The microarchitectures by vendor and CPU family: the first and the last model of each.
MICROARCHITECTURES = {
    ("AuthenticAMD", 23): ((0x00, 0x2F, "Zen"), (0x30, 0xFF, "Zen 2")),
    ("AuthenticAMD", 25): (
        (0x00, 0x0F, "Zen 3"),
        (0x10, 0x1F, "Zen 4"),
        (0x20, 0x5F, "Zen 3"),
        (0x60, 0xAF, "Zen 4"),
    ),
    ("AuthenticAMD", 26): ((0x00, 0xFF, "Zen 5"),),
    ("GenuineIntel", 6): (
        (0x3C, 0x3C, "Haswell"),
        (0x3F, 0x3F, "Haswell"),
        (0x4F, 0x4F, "Broadwell"),
        (0x55, 0x55, "Skylake-SP"),
        (0x6A, 0x6C, "Ice Lake"),
        (0x8F, 0x8F, "Sapphire Rapids"),
        (0xAD, 0xAD, "Granite Rapids"),
        (0xCF, 0xCF, "Emerald Rapids"),
    ),
}
LIBRARIES = {  # in torch.__config__
    "mkl": r"oneAPI Math Kernel Library Version ([\d.]+)",
    "onednn": r"MKL-DNN v([\d.]+)",
}


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Describe the machine and the versions that a result belongs to.

    Processors of one product name differ: what tells them apart is here too, None if unknown.
    """
    return {
        "device": get_device_name(device),
        **describe_cpu(read_cpuinfo()),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "determinism": get_determinism(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{package: version(package) for package in ("torchvision", "numpy", "pillow")},
        **{name: find_version(pattern) for name, pattern in LIBRARIES.items()},
        "libc": " ".join(platform.libc_ver()) or None,
        **describe_cuda(device),
    }


def describe_cuda(device: torch.device) -> dict[str, Any]:
    """Describe the versions that a GPU computes with; None on a CPU, or if they are unknown."""
    is_gpu = device.type == "cuda"
    return {
        "cuda": torch.version.cuda if is_gpu else None,
        "cudnn": torch.backends.cudnn.version() if is_gpu else None,
        "driver": query_nvidia_smi(device, "driver_version") if is_gpu else None,
    }


def get_device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return read_cpuinfo().get("model name") or platform.processor() or platform.machine()


def describe_cpu(cpuinfo: dict[str, str]) -> dict[str, str | int | None]:
    """Describe a processor by the properties in ``cpuinfo``."""
    family, model, stepping = (
        int(cpuinfo[key]) if cpuinfo.get(key, "").isdigit() else None
        for key in ("cpu family", "model", "stepping")
    )
    known = MICROARCHITECTURES.get((cpuinfo.get("vendor_id", ""), family or 0), ())
    names = [name for first, last, name in known if model is not None and first <= model <= last]
    return {
        "microarchitecture": names[0] if names else None,
        "cpu_family": family,
        "cpu_model": model,
        "cpu_stepping": stepping,
        "microcode": cpuinfo.get("microcode"),
    }


def find_version(pattern: str) -> str | None:
    """Find the version of a library that torch was built with."""
    found = re.search(pattern, torch.__config__.show())
    return found and found.group(1)


def query_nvidia_smi(device: torch.device, field: str) -> str | None:
    """Ask ``nvidia-smi`` for a property of a GPU; None if it does not know."""
    if shutil.which("nvidia-smi") is None:
        return None
    identifier = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={identifier}", f"--query-gpu={field}"]
    done = subprocess.run(
        [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
