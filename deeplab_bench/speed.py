"""What a model costs: parameters, FLOPs, latency, throughput and memory on one machine."""

import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from deeplab_bench.data.packed import load_split
from deeplab_bench.errors import UserError
from deeplab_bench.experiment import Experiment
from deeplab_bench.models import build_model, count_parameters
from deeplab_bench.provenance import environment, run_code_sha256

WARM_UP_SECONDS = 0.5
MEASURED_SECONDS = 1.5
LEAST_SAMPLES = 10
THROUGHPUT_BATCH = 8


class SpeedError(UserError):
    """The machine is not the one that the hardware's label names."""


def measure(experiment: Experiment, hardware: str, data_folder: Path) -> dict[str, Any]:
    """The cost of inference at the size of the profile's first validation image, float32.

    Timed is the forward pass from a normalised image in the device's memory to logits at the
    image's size, after a warm-up, the device synchronised around every pass.

    Raises:
        SpeedError: the hardware's label does not fit the device.
    """
    device = device_for(hardware)
    split = load_split(data_folder, "val")
    torch.manual_seed(0)
    model = build_model(
        experiment.architecture, experiment.phases[-1].arguments, num_classes=len(split.classes)
    )
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    height, width = split.sizes[0]
    images = torch.randn(THROUGHPUT_BATCH, 3, height, width, device=device).contiguous(
        memory_format=torch.channels_last
    )
    title = f"timing {experiment.model} ({experiment.profile}, {hardware})"
    with torch.inference_mode():
        flops = count_flops(model, images[:1])
        latencies = time_passes(model, images[:1], title)
        batch_seconds = time_passes(model, images, f"{title}, batch of {THROUGHPUT_BATCH}")
    deciles = statistics.quantiles(latencies, n=10, method="inclusive")
    return {
        "profile": experiment.profile,
        "model": experiment.model,
        "hardware": hardware,
        "input_size": [height, width],
        "parameters": count_parameters(model),
        "flops": flops,
        "batch_size": THROUGHPUT_BATCH,
        "latency_ms": {
            "p50": round(1000 * statistics.median(latencies), 3),
            "p90": round(1000 * deciles[8], 3),
            "samples": len(latencies),
        },
        "images_per_second": round(THROUGHPUT_BATCH / statistics.median(batch_seconds), 2),
        "peak_memory_mib": round(peak_memory_bytes(device) / 2**20, 1),
        "code_sha256": run_code_sha256(__name__, experiment.architecture),
        "environment": environment(device),
    }


def device_for(hardware: str) -> torch.device:
    """``cpu`` and labels that begin with it name the processor, all others the first GPU."""
    if hardware.startswith("cpu"):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SpeedError(
            f"run.hardware names {hardware!r} but there is no GPU here: use 'cpu', or run elsewhere"
        )
    return torch.device("cuda")


def count_flops(model: nn.Module, images: Tensor) -> int:
    """By torch's counter: a multiply-add is two; only convolutions and matrix products count."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())


def time_passes(model: nn.Module, images: Tensor, title: str) -> list[float]:
    """Seconds of every forward pass after the warm-up."""
    seconds: list[float] = []
    started = time.monotonic()
    with tqdm(desc=title, unit="pass") as bar:
        while time.monotonic() - started < WARM_UP_SECONDS:
            time_pass(model, images)
        started = time.monotonic()
        while len(seconds) < LEAST_SAMPLES or time.monotonic() - started < MEASURED_SECONDS:
            seconds.append(time_pass(model, images))
            bar.update()
    return seconds


def time_pass(model: nn.Module, images: Tensor) -> float:
    synchronise(images.device)
    started = time.perf_counter()
    model(images)
    synchronise(images.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_bytes(device: torch.device) -> int:
    """Of the device's allocator, or of this process on a CPU, Python and libraries included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
