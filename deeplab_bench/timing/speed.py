"""Costs of one model: parameters, FLOPs, latency, throughput, memory, training step.

Every round also times one fixed reference network on the same images. The ratio of the two times
compares models that were timed on different days.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import resnet18

from deeplab_bench.data.packed import Split
from deeplab_bench.models import build_model, check_arguments, count_parameters
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.runtime.device import prepare_model
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.settings.base import SettingsError
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.timing.machine import (
    find_device,
    read_clocks_mhz,
    read_peak_memory_mib,
    reset_peak_memory,
)
from deeplab_bench.timing.rounds import (
    compute_quantiles,
    compute_ratios,
    rotate_inputs,
    time_in_rounds,
)
from deeplab_bench.timing.steps import CPU_PIXELS, Case, choose_batch_size, make_training_step

# With these limits a model of the profile quick takes about two seconds.
LATENCY_SECONDS, MIN_PASSES = 0.5, 20
THROUGHPUT_SECONDS, PASSES_PER_BATCH = 0.3, 3
TRAINING_SECONDS, MIN_STEPS = 0.3, 3
MAX_STEPS = 10_000
INPUT_BATCHES = 3
EVALUATION_OUTPUT_STRIDES: tuple[OutputStride, ...] = (16, 8)
MIN_SPEEDUP = 1.05  # the search goes on if a batch of twice the size is this much faster
MAX_IMAGES = 1024
REFERENCE = "reference"
REFERENCE_CLASSES = 21

Network = tuple[str, Mapping[str, Any], int]  # architecture, arguments, number of classes


def measure(experiment: Experiment, hardware: str, split: Split) -> dict[str, Any]:
    """Measure all costs of a model, ready for JSON. The output stride of training comes first.

    Inference is the forward pass in float32, from normalised images in device memory to logits of
    the same size, at the size of the first validation image. Training is one step of ``Trainer``,
    from a batch of crops in host memory.

    Raises:
        HardwareError: the hardware's label does not fit this machine.
    """
    device = find_device(hardware)
    size, classes = split.sizes[0], len(split.classes)
    networks: dict[int | None, Network] = {
        stride: (experiment.architecture, arguments, classes)
        for stride, arguments in list_output_strides(experiment).items()
    }
    trained = next(iter(networks.values()))
    torch.manual_seed(0)
    title = f"timing {experiment.model} ({experiment.profile}, {hardware})"
    # On a CPU the peak includes all earlier work, so the network with the least memory goes first.
    coarsest_first = sorted(networks, key=lambda stride: -(stride or 0))
    footprints = {
        stride: measure_footprint(networks[stride], size, device) for stride in coarsest_first
    }
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
        "images_per_second": measure_throughput(trained, size, device, title),
        "training": time_training(experiment, classes, device, title),
        "clocks_mhz": read_clocks_mhz(device),
        "environment": describe_environment(device),
    }


def list_output_strides(experiment: Experiment) -> dict[int | None, Mapping[str, Any]]:
    """List the network's arguments by output stride: that of the training first, then others."""
    own = experiment.phases[-1].arguments
    found: dict[int | None, Mapping[str, Any]] = {own.get("output_stride"): own}
    for stride in EVALUATION_OUTPUT_STRIDES:
        try:
            arguments = experiment.arguments_at(stride)
            check_arguments(experiment.architecture, arguments)
        except (SettingsError, ValueError):
            continue
        found.setdefault(stride, arguments)
    return found


def build_inference_network(network: Network) -> nn.Module:
    architecture, arguments, classes = network
    model = build_model(architecture, arguments, num_classes=classes)
    return prepare_model(model)


def build_reference_network() -> nn.Module:
    """Build FCN-32s on torchvision's ResNet-18 in float32, the unit of relative times."""
    stages = list(resnet18().children())[:-2]
    classifier = nn.Conv2d(512, REFERENCE_CLASSES, kernel_size=1)
    upsample = nn.Upsample(scale_factor=32, mode="bilinear")
    network = nn.Sequential(*stages, classifier, upsample)
    return prepare_model(network)


def make_random_images(count: int, size: Sequence[int], device: torch.device) -> list[Tensor]:
    """Make ``INPUT_BATCHES`` batches (count, 3, H, W)."""
    batches = [torch.randn(count, 3, *size, device=device) for _ in range(INPUT_BATCHES)]
    return [batch.contiguous(memory_format=torch.channels_last) for batch in batches]


@torch.inference_mode()
def measure_footprint(
    network: Network, size: Sequence[int], device: torch.device
) -> dict[str, Any]:
    """Measure the parameters of a network, and the FLOPs and memory that one image takes."""
    reset_peak_memory(device)
    model = build_inference_network(network)
    image = make_random_images(1, size, device)[0]
    model(image)
    memory = read_peak_memory_mib(device)
    return {
        "parameters": count_parameters(model),
        "flops": count_flops(model, image),
        "peak_memory_mib": round(memory, 1),
    }


def count_flops(function: Callable[..., object], *arguments: Any) -> int:
    """Count the FLOPs of one call with torch's counter.

    A multiply-add counts as two. Only convolutions and matrix products count.
    """
    with FlopCounterMode(display=False) as counter:
        function(*arguments)
    return int(counter.get_total_flops())


@torch.inference_mode()
def time_latencies(
    networks: Mapping[int | None, Network], size: Sequence[int], device: torch.device, title: str
) -> dict[int | None, dict[str, Any]]:
    """Time one image at every output stride, in rounds with the reference network."""
    images = make_random_images(1, size, device)
    models = {str(stride): build_inference_network(networks[stride]) for stride in networks}
    models[REFERENCE] = build_reference_network()
    works = {name: rotate_inputs(model, images) for name, model in models.items()}
    times = time_in_rounds(
        works, device, seconds=LATENCY_SECONDS, min_rounds=MIN_PASSES, title=f"{title}, one image"
    )
    return {
        stride: {
            "latency_ms": summarise_ms(times[str(stride)], 25, 50, 75, 90, 99),
            "relative_latency": round_values(
                compute_ratios(times[str(stride)], times[REFERENCE]), 4
            ),
        }
        for stride in networks
    }


@torch.inference_mode()
def measure_throughput(
    network: Network, size: Sequence[int], device: torch.device, title: str
) -> dict[str, float]:
    """Measure images/s by batch size."""
    model = build_inference_network(network)

    def rate(count: int) -> float:
        work = rotate_inputs(model, make_random_images(count, size, device))
        text = f"{title}, {count} images"
        passes = {"pass": work}
        times = time_in_rounds(
            passes, device, seconds=0, min_rounds=PASSES_PER_BATCH, warm_up=1, title=text
        )
        return count / statistics.median(times["pass"])

    largest = MAX_IMAGES if device.type == "cuda" else max(1, CPU_PIXELS // (size[0] * size[1]))
    found = search_throughput(rate, largest)
    return {str(count): round(images_per_second, 2) for count, images_per_second in found.items()}


def search_throughput(rate: Callable[[int], float], largest: int) -> dict[int, float]:
    """Call ``rate`` on batch sizes 1, 2, 4, ... while images/s increase; return them by size.

    The search also ends at the size ``largest``, after ``THROUGHPUT_SECONDS``, or when a GPU runs
    out of memory.
    """
    found: dict[int, float] = {}
    count, started = 1, time.monotonic()
    while count <= largest and (not found or time.monotonic() - started < THROUGHPUT_SECONDS):
        try:
            found[count] = rate(count)
        except torch.cuda.OutOfMemoryError:
            if not found:
                raise
            break
        if count > 1 and found[count] < MIN_SPEEDUP * found[count // 2]:
            break
        count *= 2
    return found


def time_training(
    experiment: Experiment, classes: int, device: torch.device, title: str
) -> dict[str, Any] | None:
    """Time a training step of the first phase, in rounds with the reference network.

    The reference makes a forward pass over the same number of crops. None if a batch does not fit
    in the memory of a GPU. On a CPU a batch has at most ``CPU_PIXELS``.
    """
    phase = experiment.phases[0]
    size, batch_size = phase.training.crop_size, choose_batch_size(phase.training, device)
    reset_peak_memory(device)
    case = Case(experiment.architecture, phase, classes)
    try:
        step = make_training_step(case, batch_size, device, MAX_STEPS)
        step()
    except torch.cuda.OutOfMemoryError:
        return None
    memory = read_peak_memory_mib(device)
    reference = rotate_inputs(
        build_reference_network(), make_random_images(batch_size, size, device)
    )
    works = {"step": step, REFERENCE: torch.inference_mode()(reference)}
    times = time_in_rounds(
        works,
        device,
        seconds=TRAINING_SECONDS,
        min_rounds=MIN_STEPS,
        warm_up=1,
        title=f"{title}, training",
    )
    return {
        "crop_size": list(size),
        "batch_size": batch_size,
        "precision": phase.training.precision,
        "step_ms": summarise_ms(times["step"], 25, 50, 75),
        "relative_step": round_values(compute_ratios(times["step"], times[REFERENCE]), 4),
        "images_per_second": round(batch_size / statistics.median(times["step"]), 2),
        "peak_memory_mib": round(memory, 1),
    }


def summarise_ms(seconds: Sequence[float], *percents: int) -> dict[str, float]:
    """Compute percentiles in milliseconds, with the number of samples."""
    found = compute_quantiles([1000 * value for value in seconds], *percents)
    return round_values(found, 3) | {"samples": len(seconds)}


def round_values(values: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(value, digits) for name, value in values.items()}
