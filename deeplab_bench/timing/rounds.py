"""Timing on one device: pieces of work that take turns, so that drift meets all of them alike."""

import itertools
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from deeplab_bench.runtime.environment import environment

Work = Callable[[], object]

MEBIBYTE = 2**20
WARM_UP_ROUNDS = 2


def in_rounds(
    works: Mapping[str, Work],
    device: torch.device,
    *,
    seconds: float,
    least: int,
    warm_up: int = WARM_UP_ROUNDS,
    title: str = "timing",
) -> dict[str, list[float]]:
    """Seconds of every piece of work in every round after ``warm_up`` of them.

    Rounds go on for ``seconds`` and until there are ``least``; every other one is in the opposite
    order.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warm_up):
        for work in works.values():
            timed(work, device)
    started = time.monotonic()
    with tqdm(desc=title, unit="round") as bar:
        while bar.n < least or time.monotonic() - started < seconds:
            for name in list(works)[:: -1 if bar.n % 2 else 1]:
                times[name].append(timed(works[name], device))
            bar.update()
    return times


def timed(work: Work, device: torch.device) -> float:
    """Seconds from an idle device to an idle device, on a GPU by its own events."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        synchronise(device)
        begin.record()
        work()
        end.record()
        synchronise(device)
        return begin.elapsed_time(end) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rotating(function: Callable[[Tensor], object], inputs: Iterable[Tensor]) -> Work:
    """The function on one input after the other, and again from the first."""
    turns = itertools.cycle(inputs)
    return lambda: function(next(turns))


def quantiles(values: Sequence[float], *percents: int) -> dict[str, float]:
    """By name, as p50; between two samples linearly."""
    return {f"p{p}": float(np.percentile(values, p)) for p in percents}


def ratios(times: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratios round by round."""
    return quantiles(np.divide(times, others).tolist(), 25, 50, 75)


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mib(device: torch.device) -> float:
    """Of the device's allocator since the reset, or of this process on a CPU since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def fingerprint(device: torch.device) -> dict[str, Any]:
    """``environment`` with what else a time depends on; null where the machine does not tell."""
    driver = _nvidia_smi(device, "driver_version") if device.type == "cuda" else None
    cudnn = torch.backends.cudnn.version() if device.type == "cuda" else None
    return environment(device) | {"driver": driver, "cudnn": cudnn}


def clocks_mhz(device: torch.device) -> dict[str, float | None]:
    """Of the processor and, where that is the device, of the GPU's multiprocessors, just now."""
    gpu = _nvidia_smi(device, "clocks.sm") if device.type == "cuda" else None
    return {"cpu": _cpu_clock_mhz(), "gpu": None if gpu is None else float(gpu)}


def _cpu_clock_mhz() -> float | None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return round(float(np.median(clocks)), 1) if clocks else None


def _nvidia_smi(device: torch.device, field: str) -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    identifier = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    command = ["nvidia-smi", f"--id={identifier}", f"--query-gpu={field}"]
    done = subprocess.run(
        [*command, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None
