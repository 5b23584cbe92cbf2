"""What a model costs: parameters, FLOPs, latency, throughput, memory and training on one machine.

Times are taken in rounds with passes of one fixed network over the same images. The ratio of the
two compares models that were timed on different days.
"""

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from deeplab_bench.data.packed import load_split
from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model, check_arguments, count_parameters
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.results.provenance import device_name, run_code_sha256
from deeplab_bench.settings.base import SettingsError
from deeplab_bench.settings.schema import Experiment, Inference
from deeplab_bench.timing.rounds import (
    clocks_mhz,
    fingerprint,
    in_rounds,
    peak_memory_mib,
    quantiles,
    ratios,
    reset_peak_memory,
    rotating,
)
from deeplab_bench.timing.steps import CPU_PIXELS, Case, measured_batch, training_step

# The profile quick takes about two seconds beyond the start of the process.
LATENCY_SECONDS, LEAST_PASSES = 0.5, 20
THROUGHPUT_SECONDS, PASSES_PER_BATCH = 0.3, 3
TRAINING_SECONDS, LEAST_STEPS = 0.3, 3
MOST_STEPS = 10_000
INPUTS = 3
EVALUATION_OUTPUT_STRIDES: tuple[OutputStride, ...] = (16, 8)
LEAST_IMPROVEMENT = 1.05  # of a doubled batch's throughput, to double it again
MOST_IMAGES = 1024
REFERENCE = "reference"
REFERENCE_CLASSES = 21

Network = tuple[str, Mapping[str, Any], int]  # architecture, arguments, number of classes


class SpeedError(UserError):
    """The machine is not the one that the hardware's label names."""


def measure(experiment: Experiment, hardware: str, data_folder: Path) -> dict[str, Any]:
    """The cost of a model, ready for JSON; the output stride it is trained at comes first.

    Of inference, at the size of the profile's first validation image: the forward pass in float32
    from normalised images in the device's memory to logits at their size. Of training: a step as
    ``Trainer`` takes it, from a batch of crops in the host's memory.

    Raises:
        SpeedError: the hardware's label does not fit the device.
    """
    device = device_for(hardware)
    split = load_split(data_folder, "val")
    size, classes = split.sizes[0], len(split.classes)
    networks: dict[int | None, Network] = {
        stride: (experiment.architecture, arguments, classes)
        for stride, arguments in output_strides(experiment).items()
    }
    trained = next(iter(networks.values()))
    torch.manual_seed(0)
    title = f"timing {experiment.model} ({experiment.profile}, {hardware})"
    # On a CPU a peak is of all that came before: the coarsest map goes first.
    coarsest_first = sorted(networks, key=lambda stride: -(stride or 0))
    footprints = {stride: footprint(networks[stride], size, device) for stride in coarsest_first}
    latencies = time_latencies(networks, size, device, title)
    return {
        "profile": experiment.profile,
        "model": experiment.model,
        "hardware": hardware,
        "input_size": list(size),
        "output_strides": [
            {"output_stride": stride} | footprints[stride] | latencies[stride]
            for stride in networks
        ],
        "images_per_second": throughput_of(trained, size, device, title),
        "training": time_training(experiment, classes, device, title),
        "clocks_mhz": clocks_mhz(device),
        "code_sha256": run_code_sha256(__name__, experiment.architecture),
        "environment": fingerprint(device),
    }


def device_for(hardware: str) -> torch.device:
    """``cpu`` and labels that begin with it name the processor, all others the first GPU.

    The label's other words, as those of ``cpu_epyc`` or ``h100``, are parts of the device's name.

    Raises:
        SpeedError: there is no GPU, or the device has another name.
    """
    if hardware.startswith("cpu"):
        device = torch.device("cpu")
    elif torch.cuda.is_available():
        device = torch.device("cuda")
    else:
        raise SpeedError(
            f"run.hardware names {hardware!r} but there is no GPU here: use 'cpu', or run elsewhere"
        )
    name = device_name(device)
    for word in set(re.split(r"[_.]", hardware)) - {"cpu", "gpu"}:
        if word.lower() not in name.lower():
            raise SpeedError(
                f"run.hardware names {hardware!r} but the device here is {name!r}: use "
                f"{device.type.replace('cuda', 'gpu')!r} or a word of that name, or run elsewhere"
            )
    return device


def output_strides(experiment: Experiment) -> dict[int | None, Mapping[str, Any]]:
    """The network's arguments at the output stride of its training, and at others it can have."""
    own = experiment.phases[-1].arguments
    found: dict[int | None, Mapping[str, Any]] = {own.get("output_stride"): own}
    for stride in EVALUATION_OUTPUT_STRIDES:
        try:
            arguments = experiment.arguments_for(Inference(output_stride=stride))
            check_arguments(experiment.architecture, arguments)
        except (SettingsError, ValueError):
            continue
        found.setdefault(stride, arguments)
    return found


def inference_network(network: Network, device: torch.device) -> nn.Module:
    architecture, arguments, classes = network
    model = build_model(architecture, arguments, num_classes=classes)
    return model.to(device).to(memory_format=torch.channels_last).eval()


def reference_network(device: torch.device) -> nn.Module:
    """FCN-32s on torchvision's ResNet-18, float32: the unit of relative times."""
    stages = list(resnet18().children())[:-2]
    classifier = nn.Conv2d(512, REFERENCE_CLASSES, kernel_size=1)
    upsample = nn.Upsample(scale_factor=32, mode="bilinear")
    network = nn.Sequential(*stages, classifier, upsample)
    return network.to(device).to(memory_format=torch.channels_last).eval()


def random_images(count: int, size: Sequence[int], device: torch.device) -> list[Tensor]:
    """``INPUTS`` batches (count, 3, H, W)."""
    batches = [torch.randn(count, 3, *size, device=device) for _ in range(INPUTS)]
    return [batch.contiguous(memory_format=torch.channels_last) for batch in batches]


@torch.inference_mode()
def footprint(network: Network, size: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Of one image: what a network holds and computes, without the time."""
    reset_peak_memory(device)
    model = inference_network(network, device)
    image = random_images(1, size, device)[0]
    model(image)
    memory = peak_memory_mib(device)
    return {
        "parameters": count_parameters(model),
        "flops": count_flops(model, image),
        "peak_memory_mib": round(memory, 1),
    }


def count_flops(model: nn.Module, images: Tensor) -> int:
    """By torch's counter: a multiply-add is two; only convolutions and matrix products count."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())


@torch.inference_mode()
def time_latencies(
    networks: Mapping[int | None, Network], size: Sequence[int], device: torch.device, title: str
) -> dict[int | None, dict[str, Any]]:
    """Of one image at every output stride, in rounds with the reference's pass over it."""
    images = random_images(1, size, device)
    models = {str(stride): inference_network(networks[stride], device) for stride in networks}
    models[REFERENCE] = reference_network(device)
    works = {name: rotating(model, images) for name, model in models.items()}
    times = in_rounds(
        works, device, seconds=LATENCY_SECONDS, least=LEAST_PASSES, title=f"{title}, one image"
    )
    return {
        stride: {
            "latency_ms": milliseconds(times[str(stride)], 25, 50, 75, 90, 99),
            "relative_latency": rounded(ratios(times[str(stride)], times[REFERENCE]), 4),
        }
        for stride in networks
    }


@torch.inference_mode()
def throughput_of(
    network: Network, size: Sequence[int], device: torch.device, title: str
) -> dict[str, float]:
    """Images/s by batch size."""
    model = inference_network(network, device)

    def rate(count: int) -> float:
        work = rotating(model, random_images(count, size, device))
        text = f"{title}, {count} images"
        passes = {"pass": work}
        times = in_rounds(passes, device, seconds=0, least=PASSES_PER_BATCH, warm_up=1, title=text)
        return count / statistics.median(times["pass"])

    most = MOST_IMAGES if device.type == "cuda" else max(1, CPU_PIXELS // (size[0] * size[1]))
    found = search_throughput(rate, most)
    return {str(count): round(images_per_second, 2) for count, images_per_second in found.items()}


def search_throughput(rate: Callable[[int], float], most: int) -> dict[int, float]:
    """Images/s of ``rate`` by batch size, doubled from 1 for as long as that is faster.

    The search also ends at ``most``, after ``THROUGHPUT_SECONDS``, or where a GPU's memory does.
    """
    found: dict[int, float] = {}
    count, started = 1, time.monotonic()
    while count <= most and (not found or time.monotonic() - started < THROUGHPUT_SECONDS):
        try:
            found[count] = rate(count)
        except torch.cuda.OutOfMemoryError:
            if not found:
                raise
            break
        if count > 1 and found[count] < LEAST_IMPROVEMENT * found[count // 2]:
            break
        count *= 2
    return found


def time_training(
    experiment: Experiment, classes: int, device: torch.device, title: str
) -> dict[str, Any] | None:
    """Of a step of the first phase, in rounds with the reference's pass over as many crops.

    None where a batch does not fit into a GPU's memory. On a CPU it has at most ``CPU_PIXELS``.
    """
    phase = experiment.phases[0]
    size, batch_size = phase.training.crop_size, measured_batch(phase.training, device)
    reset_peak_memory(device)
    case = Case(experiment.architecture, phase, classes)
    try:
        step = training_step(case, batch_size, device, MOST_STEPS)
        step()
    except torch.cuda.OutOfMemoryError:
        return None
    memory = peak_memory_mib(device)
    reference = rotating(reference_network(device), random_images(batch_size, size, device))
    works = {"step": step, REFERENCE: torch.inference_mode()(reference)}
    times = in_rounds(
        works,
        device,
        seconds=TRAINING_SECONDS,
        least=LEAST_STEPS,
        warm_up=1,
        title=f"{title}, training",
    )
    return {
        "crop_size": list(size),
        "batch_size": batch_size,
        "precision": phase.training.precision,
        "step_ms": milliseconds(times["step"], 25, 50, 75),
        "relative_step": rounded(ratios(times["step"], times[REFERENCE]), 4),
        "images_per_second": round(batch_size / statistics.median(times["step"]), 2),
        "peak_memory_mib": round(memory, 1),
    }


def milliseconds(seconds: Sequence[float], *percents: int) -> dict[str, float]:
    found = quantiles([1000 * value for value in seconds], *percents)
    return rounded(found, 3) | {"samples": len(seconds)}


def rounded(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
