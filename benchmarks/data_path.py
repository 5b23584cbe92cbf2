"""Batches of packed data, those of torchvision, and training that waits for neither.

The images are generated: 500 px wide JPEGs in Pascal VOC's folders.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import VOCSegmentation, wrap_dataset_for_transforms_v2
from torchvision.transforms import v2
from torchvision.tv_tensors import Image as ImageTensor
from torchvision.tv_tensors import Mask

from benchmarks.comparison import OURS, Benchmark, Contender, Settings
from benchmarks.network_steps import ARGUMENTS, schedule
from deeplab_bench.data.augmentation import MEAN, MEAN_PIXEL, STD
from deeplab_bench.data.batches import CPU, normalise, training_batches
from deeplab_bench.data.packed import Split, load_split, pack
from deeplab_bench.data.shapes import CLASSES, draw_scene
from deeplab_bench.data.voc_layout import VOID, VocFolder, write_label
from deeplab_bench.models import build_model
from deeplab_bench.runtime.device import default_workers
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.rounds import Work
from deeplab_bench.training.train import Trainer

IMAGES = 32
SIDES = (375, 500)
STEPS = 20  # many more than batches are made in advance


def batches(settings: Settings) -> Benchmark:
    training = schedule(settings)
    source = generated(settings.folder / "batches")
    traffic = 3 * settings.batch * settings.crop**2 * 4

    def contender(drawn: Iterator[tuple[Tensor, Tensor]]) -> Contender:
        return Contender(drawing(drawn), traffic_bytes=traffic)

    return Benchmark(
        "batches",
        f"A batch of {settings.batch} crops of {settings.crop} px, rescaled, mirrored and "
        "normalised, on one processor without workers: ours from packed pixels, torchvision's "
        "VOCSegmentation with its transforms v2 from JPEGs and PNGs.",
        {
            OURS: lambda: contender(own_batches(packed(source), training, workers=0)),
            "torchvision": lambda: contender(torchvision_batches(source, training)),
        },
    )


def waiting(settings: Settings) -> Benchmark:
    """The goal: training on tensors in memory takes at least 97 % of the time."""
    training = schedule(settings)
    workers = default_workers(settings.device)
    split = packed(generated(settings.folder / "waiting"))
    in_memory = next(own_batches(split, training, workers=0, device=settings.device))

    def contender(drawn: Iterator[tuple[Tensor, Tensor]]) -> Contender:
        return Contender(training_on(drawn, training, settings.device))

    return Benchmark(
        "waiting_for_data",
        f"{STEPS} training steps of aspp on {settings.batch} crops of {settings.crop} px, with "
        f"batches that a GPU or {workers} worker(s) make beside it, and with one batch in memory: "
        "a ratio of 0.97 or more is the goal.",
        {
            OURS: lambda: contender(own_batches(split, training, workers, settings.device)),
            "tensors in memory": lambda: contender(itertools.repeat(in_memory)),
        },
    )


def generated(root: Path) -> VocFolder:
    """``IMAGES`` training images where torchvision looks for them."""
    source = VocFolder(root / "VOCdevkit" / "VOC2012")
    for sub in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (source.root / sub).mkdir(parents=True)
    names = [f"image_{index}" for index in range(IMAGES)]
    height, width = SIDES
    for index, name in enumerate(names):
        scene = draw_scene(np.random.RandomState(index), width)
        Image.fromarray(scene.image[:height]).save(source.image_path(name))
        write_label(source.label_path(name), scene.label[:height])
    source.listing("train").write_text("\n".join(names) + "\n", encoding="utf-8")
    return source


def packed(source: VocFolder) -> Split:
    folder = source.root / "packed"
    pack(source, {"train": source.names("train")}, list(CLASSES), folder)
    return load_split(folder, "train")


def own_batches(
    split: Split, training: Training, workers: int, device: torch.device = CPU
) -> Iterator[tuple[Tensor, Tensor]]:
    return iter(training_batches(split, training, seed=0, device=device, workers=workers))


def torchvision_batches(source: VocFolder, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised float32 images and int64 labels, as torchvision's reference script makes them."""
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.ScaleJitter(SIDES, training.random_scale),
            v2.RandomCrop(
                training.crop_size,
                pad_if_needed=True,
                fill={ImageTensor: MEAN_PIXEL, Mask: VOID},
            ),
            v2.RandomHorizontalFlip(),
            v2.ToDtype({ImageTensor: torch.float32, Mask: torch.int64}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    root = source.root.parent.parent
    data: Any = VOCSegmentation(root, image_set="train", transforms=transforms)
    loader = DataLoader(
        wrap_dataset_for_transforms_v2(data),
        batch_size=training.batch_size,
        shuffle=True,
        drop_last=True,
    )
    return ((images, masks.squeeze(1)) for images, masks in endless(loader))


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def drawing(batches: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], tuple[Tensor, Tensor]]:
    """The next batch, normalised if it is not."""

    def draw() -> tuple[Tensor, Tensor]:
        images, labels = next(batches)
        return normalise(images) if images.dtype == torch.uint8 else images, labels.long()

    return draw


def training_on(
    batches: Iterator[tuple[Tensor, Tensor]], training: Training, device: torch.device
) -> Work:
    model = build_model("aspp", ARGUMENTS, num_classes=len(CLASSES)).to(device)
    trainer = Trainer(model.to(memory_format=torch.channels_last), training, device)

    def steps() -> None:
        for _ in range(STEPS):
            trainer.step(*next(batches))

    return steps
