"""A training and an evaluation step of ``aspp`` and of other DeepLabv3s, all on ResNet-50.

Output stride 8 with rates 12, 24 and 36, as torchvision and segmentation-models-pytorch have it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import deeplabv3_resnet50

from benchmarks.comparison import OURS, Benchmark, Contender, Settings, peer
from deeplab_bench.data.batches import normalise
from deeplab_bench.data.voc_layout import VOID
from deeplab_bench.evaluation.evaluate import view_probabilities
from deeplab_bench.models import build_model
from deeplab_bench.settings.schema import Phase
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.rounds import Work
from deeplab_bench.timing.steps import Case, training_step

CLASSES = 21
ARGUMENTS = {
    "backbone": "resnet50",
    "width": 1.0,
    "output_stride": 8,
    "atrous_rates": [12, 24, 36],
    "head_channels": 256,
    "multi_grid": [1, 1, 1],
}
MOST_STEPS = 100_000
BASE_LR = 0.001


def training(settings: Settings) -> Benchmark:
    def peers(name: str, network: Callable[[], nn.Module]) -> dict[str, Callable[[], Contender]]:
        return {
            name: lambda: peer_training(network(), settings, tuned=False),
            f"{name}, tuned": lambda: peer_training(network(), settings, tuned=True),
        }

    return Benchmark(
        "training_step",
        f"A step of SGD on a batch of {settings.batch} crops of {settings.crop} px. Ours, with "
        "deterministic algorithms, from uint8 crops in the host's memory, in channels-last memory, "
        "under bfloat16 autocast but where it says float32. The others from normalised float32 "
        "crops: as their users run them, contiguous and in float32, or tuned, in channels-last "
        "memory under bfloat16 autocast. Their heads end in one more 3x3 convolution.",
        {
            OURS: lambda: own_training(settings),
            f"{OURS}, compiled": lambda: own_training(settings, compile=True),
            f"{OURS}, float32": lambda: own_training(settings, precision="float32"),
            **peers("torchvision", torchvision_network),
            **peers("segmentation-models-pytorch", smp_network),
        },
    )


def evaluation(settings: Settings) -> Benchmark:
    return Benchmark(
        "evaluation_step",
        f"From an image of {settings.crop} px in the device's memory to class indices at its size, "
        "float32: ours from uint8 in channels-last memory, the others from a normalised one, "
        "contiguous and in channels-last memory.",
        {
            OURS: lambda: own_evaluation(settings),
            "torchvision": lambda: peer_evaluation(torchvision_network(), settings, tuned=False),
            "torchvision, channels last": lambda: peer_evaluation(
                torchvision_network(), settings, tuned=True
            ),
            "segmentation-models-pytorch": lambda: peer_evaluation(
                smp_network(), settings, tuned=False
            ),
            "segmentation-models-pytorch, channels last": lambda: peer_evaluation(
                smp_network(), settings, tuned=True
            ),
        },
    )


def schedule(settings: Settings, **changes: Any) -> Training:
    """The one of the profile voc2012, without an end that the steps would reach."""
    content = {
        "iterations": MOST_STEPS,
        "batch_size": settings.batch,
        "crop_size": settings.size,
        "base_lr": BASE_LR,
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "random_scale": (0.5, 2.0),
        "horizontal_flip": True,
        "precision": "bfloat16",
    }
    return Training.model_validate(content | changes)


def own_training(settings: Settings, **changes: Any) -> Contender:
    training = schedule(settings, **changes)

    def step_of(training: Training) -> Work:
        case = Case("aspp", Phase(arguments=ARGUMENTS, training=training), CLASSES)
        return deterministic(training_step(case, settings.batch, settings.device, MOST_STEPS), True)

    flops = flops_of(step_of(training.model_copy(update={"compile": False})))
    return Contender(step_of(training), flops, precision=getattr(torch, training.precision))


def peer_training(network: nn.Module, settings: Settings, tuned: bool) -> Contender:
    """The loop of torchvision's reference script."""
    device = settings.device
    model = prepared(network, device, tuned).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=BASE_LR, momentum=0.9, weight_decay=0.0001)
    images = torch.randn(settings.batch, 3, *settings.size)
    labels = torch.randint(CLASSES, (settings.batch, *settings.size))

    def step() -> None:
        inputs = as_laid_out(images.to(device), tuned)
        targets = labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=tuned):
            loss = F.cross_entropy(logits_of(model(inputs)), targets, ignore_index=VOID)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    work = deterministic(step, False)
    return Contender(work, flops_of(work), precision=torch.bfloat16 if tuned else torch.float32)


def own_evaluation(settings: Settings) -> Contender:
    network = build_model("aspp", ARGUMENTS, num_classes=CLASSES)
    model = prepared(network, settings.device, channels_last=True).eval()
    size = (1, 3, *settings.size)
    image = torch.randint(256, size, dtype=torch.uint8, device=settings.device)

    @torch.inference_mode()
    def step() -> Tensor:
        return view_probabilities(model, normalise(image), 1.0, flip=False).argmax(dim=1)

    work = deterministic(step, True)
    return Contender(work, flops_of(work))


def peer_evaluation(network: nn.Module, settings: Settings, tuned: bool) -> Contender:
    model = prepared(network, settings.device, tuned).eval()
    image = as_laid_out(torch.randn(1, 3, *settings.size, device=settings.device), tuned)

    @torch.inference_mode()
    def step() -> Tensor:
        return logits_of(model(image)).argmax(dim=1)

    work = deterministic(step, False)
    return Contender(work, flops_of(work))


def torchvision_network() -> nn.Module:
    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)


def smp_network() -> nn.Module:
    """
    Raises:
        MissingPeer: segmentation-models-pytorch is not installed.
    """
    library = peer("segmentation_models_pytorch")
    return library.DeepLabV3("resnet50", encoder_weights=None, classes=CLASSES)


def prepared(network: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    network = network.to(device)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def as_laid_out(images: Tensor, channels_last: bool) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def logits_of(output: Any) -> Tensor:
    """torchvision's networks give them by name."""
    return output["out"] if isinstance(output, dict) else output


def deterministic(work: Work, enabled: bool) -> Work:
    """Ours always trains and scores so; torch has no such backward pass for some of the others."""

    def step() -> object:
        torch.use_deterministic_algorithms(enabled)
        return work()

    return step


def flops_of(work: Work) -> int:
    """Of one step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
