"""Benchmark of ``aspp``'s training and evaluation step against other DeepLabv3s on ResNet-50.

All have output stride 8 and rates 12, 24 and 36, as in torchvision and segmentation-models-pytorch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation import deeplabv3_resnet50

from benchmarks.comparison import OURS, Benchmark, Implementation, Workload, import_peer
from deeplab_bench.data.pixels import VOID
from deeplab_bench.evaluation.predict import compute_view_probabilities
from deeplab_bench.models import build_model
from deeplab_bench.runtime.device import computes_bfloat16
from deeplab_bench.settings.experiment import Phase
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.rounds import Work
from deeplab_bench.timing.speed import count_flops
from deeplab_bench.timing.steps import Case, make_training_step

CLASSES = 21
ARGUMENTS = {
    "backbone": "resnet50",
    "width": 1.0,
    "output_stride": 8,
    "atrous_rates": [12, 24, 36],
    "head_channels": 256,
    "multi_grid": [1, 1, 1],
}
MAX_STEPS = 100_000
BASE_LR = 0.001


def build_training_benchmark(workload: Workload) -> Benchmark:
    def peers(name: str, build: Callable[[], nn.Module]) -> dict[str, Callable[[], Implementation]]:
        return {
            name: lambda: make_peer_training(build(), workload, tuned=False),
            f"{name}, tuned": lambda: make_peer_training(build(), workload, tuned=True),
        }

    precision = (
        "bfloat16 autocast"
        if computes_bfloat16(workload.device)
        else "float32, as this CPU lacks bfloat16"
    )
    return Benchmark(
        "training_step",
        f"One SGD step on a batch of {workload.batch} crops of {workload.crop} px. Ours uses "
        "deterministic algorithms, channels-last memory and, except in the float32 row, "
        f"{precision}; it starts from uint8 crops in host memory. The others start from normalised "
        "float32 crops in host memory. They run by default in float32 and contiguous memory, and "
        f"when tuned in {precision} and channels-last memory. Their heads have one more 3x3 "
        "convolution.",
        {
            OURS: lambda: make_own_training(workload),
            f"{OURS}, compiled": lambda: make_own_training(workload, compile=True),
            f"{OURS}, float32": lambda: make_own_training(workload, precision="float32"),
            **peers("torchvision", build_torchvision_network),
            **peers("segmentation-models-pytorch", build_smp_network),
        },
    )


def build_evaluation_benchmark(workload: Workload) -> Benchmark:
    def peers(name: str, build: Callable[[], nn.Module]) -> dict[str, Callable[[], Implementation]]:
        return {
            name: lambda: make_peer_evaluation(build(), workload, tuned=False),
            f"{name}, channels last": lambda: make_peer_evaluation(build(), workload, tuned=True),
        }

    return Benchmark(
        "evaluation_step",
        f"From one image of {workload.crop} px in device memory to its class indices, in float32. "
        "Ours starts from uint8 pixels in channels-last memory. The others start from a normalised "
        "image in contiguous or channels-last memory.",
        {
            OURS: lambda: make_own_evaluation(workload),
            **peers("torchvision", build_torchvision_network),
            **peers("segmentation-models-pytorch", build_smp_network),
        },
    )


def make_schedule(workload: Workload, **changes: Any) -> Training:
    """Make the schedule of the profile voc2012, but with more iterations than are ever timed."""
    content = {
        "iterations": MAX_STEPS,
        "batch_size": workload.batch,
        "crop_size": workload.size,
        "base_lr": BASE_LR,
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "random_scale": (0.5, 2.0),
        "horizontal_flip": True,
        "precision": "bfloat16" if computes_bfloat16(workload.device) else "float32",
    }
    return Training.model_validate(content | changes)


def make_own_training(workload: Workload, **changes: Any) -> Implementation:
    schedule = make_schedule(workload, **changes)

    def make_step(schedule: Training) -> Work:
        case = Case("aspp", Phase(arguments=ARGUMENTS, training=schedule), CLASSES)
        step = make_training_step(case, workload.batch, workload.device, MAX_STEPS)
        return set_determinism(step, True)

    flops = count_flops(make_step(schedule.model_copy(update={"compile": False})))
    return Implementation(make_step(schedule), flops, precision=getattr(torch, schedule.precision))


def make_peer_training(network: nn.Module, workload: Workload, tuned: bool) -> Implementation:
    """Make a training step as in torchvision's reference script."""
    device = workload.device
    autocast = tuned and computes_bfloat16(device)
    model = prepare(network, device, tuned).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE_LR, momentum=0.9, weight_decay=0.0001)
    images = torch.randn(workload.batch, 3, *workload.size)
    labels = torch.randint(CLASSES, (workload.batch, *workload.size))

    def step() -> None:
        inputs = set_layout(images.to(device), tuned)
        targets = labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss = F.cross_entropy(get_logits(model(inputs)), targets, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    work = set_determinism(step, False)
    precision = torch.bfloat16 if autocast else torch.float32
    return Implementation(work, count_flops(work), precision=precision)


def make_own_evaluation(workload: Workload) -> Implementation:
    network = build_model("aspp", ARGUMENTS, num_classes=CLASSES)
    model = prepare(network, workload.device, channels_last=True).eval()
    size = (1, 3, *workload.size)
    image = torch.randint(256, size, dtype=torch.uint8, device=workload.device)

    @torch.inference_mode()
    def step() -> Tensor:
        seen = network.colours.normalise(image)
        return compute_view_probabilities(model, seen, 1.0, flip=False).argmax(dim=1)

    work = set_determinism(step, True)
    return Implementation(work, count_flops(work))


def make_peer_evaluation(network: nn.Module, workload: Workload, tuned: bool) -> Implementation:
    model = prepare(network, workload.device, tuned).eval()
    image = set_layout(torch.randn(1, 3, *workload.size, device=workload.device), tuned)

    @torch.inference_mode()
    def step() -> Tensor:
        return get_logits(model(image)).argmax(dim=1)

    work = set_determinism(step, False)
    return Implementation(work, count_flops(work))


def build_torchvision_network() -> nn.Module:
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)


def build_smp_network() -> nn.Module:
    """Build DeepLabv3 of segmentation-models-pytorch.

    Raises:
        MissingPeer: segmentation-models-pytorch is not installed.
    """
    library = import_peer("segmentation_models_pytorch")
    return library.DeepLabV3("resnet50", encoder_weights=None, classes=CLASSES)


def prepare(network: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def set_layout(images: Tensor, channels_last: bool) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def get_logits(output: Any) -> Tensor:
    """Return the logits (N, C, H, W). Networks of torchvision return them in a dictionary."""
    return output["out"] if isinstance(output, dict) else output


def set_determinism(work: Work, enabled: bool) -> Work:
    """Return work that first switches deterministic algorithms on or off.

    Ours always uses them. Some of the other networks have no deterministic backward pass.
    """

    def step() -> object:
        torch.use_deterministic_algorithms(enabled)
        return work()

    return step
