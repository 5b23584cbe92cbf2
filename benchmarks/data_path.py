"""Benchmarks of our batches against torchvision's, and of the time that training waits for them.

The images are generated: JPEGs of 375 x 500 px in the folders of Pascal VOC.
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

from benchmarks.comparison import OURS, Benchmark, Implementation, Workload
from benchmarks.network_steps import ARGUMENTS, make_schedule
from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.augmentation import MEAN_PIXEL
from deeplab_bench.data.batches import CPU, iterate_batches
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.packing import pack
from deeplab_bench.data.pixels import VOID, write_label
from deeplab_bench.data.shapes import CLASSES, draw_scene
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.models import build_model
from deeplab_bench.runtime.device import count_default_workers
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.rounds import Work
from deeplab_bench.training.trainer import Trainer

IMAGES = 32
SIDES = (375, 500)
STEPS = 20  # many more than the batches that workers prepare in advance

Batches = Iterator[tuple[Tensor, Tensor]]


def build_batches_benchmark(workload: Workload) -> Benchmark:
    schedule = make_schedule(workload)
    source = write_images(workload.folder / "batches")
    traffic = 3 * workload.batch * workload.crop**2 * 4

    def drawing(batches: Batches) -> Implementation:
        return Implementation(make_draw(batches), traffic_bytes=traffic)

    return Benchmark(
        "batches",
        f"A batch of {workload.batch} crops of {workload.crop} px, rescaled, mirrored and "
        "normalised, on one processor core without worker processes. Ours reads packed pixels; "
        "torchvision's VOCSegmentation, with its transforms v2, reads JPEGs and PNGs.",
        {
            OURS: lambda: drawing(make_own_batches(pack_images(source), schedule, workers=0)),
            "torchvision": lambda: drawing(make_torchvision_batches(source, schedule)),
        },
    )


def build_waiting_benchmark(workload: Workload) -> Benchmark:
    """Compare training on real batches with training on one batch that stays in memory."""
    schedule = make_schedule(workload)
    workers = count_default_workers(workload.device)
    split = pack_images(write_images(workload.folder / "waiting"))
    in_memory = next(make_own_batches(split, schedule, workers=0, device=workload.device))

    def training(batches: Batches) -> Implementation:
        return Implementation(make_training_steps(batches, schedule, workload.device))

    return Benchmark(
        "waiting_for_data",
        f"{STEPS} training steps of aspp on {workload.batch} crops of {workload.crop} px. Ours "
        f"makes batches during training, on the GPU or in {workers} worker process(es); the other "
        "row uses one batch in memory, so it never waits. The goal is a ratio of at least 0.97.",
        {
            OURS: lambda: training(make_own_batches(split, schedule, workers, workload.device)),
            "tensors in memory": lambda: training(itertools.repeat(in_memory)),
        },
    )


def write_images(root: Path) -> VocFolder:
    """Write ``IMAGES`` training images to the folders that torchvision reads."""
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


def pack_images(source: VocFolder) -> Split:
    folder = source.root / "packed"
    pack(source, {"train": source.names("train")}, list(CLASSES), folder)
    return load_split(folder, "train")


def make_own_batches(
    split: Split, schedule: Training, workers: int, device: torch.device = CPU
) -> Batches:
    return iter(iterate_batches(split, schedule, seed=0, device=device, workers=workers))


def make_torchvision_batches(source: VocFolder, schedule: Training) -> Batches:
    """Make batches as torchvision's reference script does.

    Yields normalised float32 images (N, 3, H, W) and int64 labels (N, H, W).
    """
    transforms = v2.Compose(
        [
            v2.ToImage(),
            v2.ScaleJitter(SIDES, schedule.random_scale),
            v2.RandomCrop(
                schedule.crop_size,
                pad_if_needed=True,
                fill={ImageTensor: MEAN_PIXEL, Mask: VOID},
            ),
            v2.RandomHorizontalFlip(),
            v2.ToDtype({ImageTensor: torch.float32, Mask: torch.int64}, scale=True),
            v2.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    root = source.root.parent.parent
    data: Any = VOCSegmentation(root, image_set="train", transforms=transforms)
    loader = DataLoader(
        wrap_dataset_for_transforms_v2(data),
        batch_size=schedule.batch_size,
        shuffle=True,
        drop_last=True,
    )
    return ((images, masks.squeeze(1)) for images, masks in repeat(loader))


def repeat(loader: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches of every epoch, without end."""
    while True:
        yield from loader


def make_draw(batches: Batches) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that draws the next batch and normalises images that are still uint8."""

    def draw() -> tuple[Tensor, Tensor]:
        images, labels = next(batches)
        return IMAGENET.normalise(images) if images.dtype == torch.uint8 else images, labels.long()

    return draw


def make_training_steps(batches: Batches, schedule: Training, device: torch.device) -> Work:
    """Return a function that takes ``STEPS`` training steps."""
    model = build_model("aspp", ARGUMENTS, num_classes=len(CLASSES)).to(device)
    trainer = Trainer(model.to(memory_format=torch.channels_last), schedule, device)

    def steps() -> None:
        for _ in range(STEPS):
            trainer.step(*next(batches))

    return steps
