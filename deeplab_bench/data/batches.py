"""Training batches: random scale, crop and flip, the same whatever process makes them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deeplab_bench.data.packed import Split
from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.experiment import Training

# ImageNet's, as torchvision's weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MEAN_PIXEL = tuple(round(255 * value) for value in MEAN)


def training_batches(
    split: Split, training: Training, seed: int, *, first_iteration: int = 0, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches of every iteration from ``first_iteration`` on.

    Images uint8 (N, 3, H, W), labels uint8 (N, H, W) at ``crop_size``. Epochs follow each other
    without a gap, so every batch is full. A batch depends on the seed and its iteration alone, not
    on the number of workers.
    """
    return DataLoader(
        Crops(split, training, seed),
        batch_sampler=Draws(len(split), training, seed, first_iteration),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        prefetch_factor=4 if workers else None,
    )


def normalise(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float32 of zero mean and unit variance, channels last in memory."""
    # Filled in where they are needed: a copy from the host would have a GPU waited for.
    mean, std = (
        torch.stack([torch.full((1, 1), 255 * value, device=images.device) for value in values])
        for values in (MEAN, STD)
    )
    scaled = (images.float() - mean) / std
    return scaled.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Draws(Sampler[list[int]]):
    """The positions, in the endless stream of shuffled epochs, that make up each batch."""

    images: int
    training: Training
    seed: int
    first_iteration: int

    def __len__(self) -> int:
        return self.training.iterations - self.first_iteration

    def __iter__(self) -> Iterator[list[int]]:
        size = self.training.batch_size
        for iteration in range(self.first_iteration, self.training.iterations):
            yield list(range(iteration * size, (iteration + 1) * size))


@dataclass(frozen=True)
class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Augmented crops by their position in the endless stream of shuffled epochs."""

    split: Split
    training: Training
    seed: int

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        epoch, rank = divmod(position, len(self.split))
        index = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self.split))[rank]
        image, label = augment(
            self.split.image(index),
            self.split.label(index),
            self.training,
            np.random.default_rng((self.seed, 1, position)),
        )
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(label)


def augment(
    image: Pixels, label: Pixels, training: Training, random: np.random.Generator
) -> tuple[Pixels, Pixels]:
    """A crop of the rescaled and perhaps mirrored pair.

    What the crop has beyond the image is mean pixels, and void in the label.
    """
    scale = random.uniform(*training.random_scale)
    rows, from_rows = window(image.shape[0], training.crop_size[0], scale, random.random())
    columns, from_columns = window(image.shape[1], training.crop_size[1], scale, random.random())
    box = (from_columns[0], from_rows[0], from_columns[1], from_rows[1])
    crop = np.full((*training.crop_size, 3), MEAN_PIXEL, dtype=np.uint8)
    truth = np.full(training.crop_size, VOID, dtype=np.uint8)
    crop[:rows, :columns] = resize(image, (columns, rows), box, Image.Resampling.BILINEAR)
    truth[:rows, :columns] = resize(label, (columns, rows), box, Image.Resampling.NEAREST)
    if training.horizontal_flip and random.random() < 0.5:
        crop, truth = crop[:, ::-1].copy(), truth[:, ::-1].copy()
    return crop, truth


def window(side: int, crop: int, scale: float, place: float) -> tuple[int, tuple[float, float]]:
    """The pixels of a crop that a rescaled side fills, and the stretch of the side they show.

    ``place`` in [0, 1) says where among the possible positions the crop lies.
    """
    scaled = max(1, round(side * scale))
    filled = min(crop, scaled)
    start = int(place * (scaled - filled + 1))
    return filled, (start * side / scaled, (start + filled) * side / scaled)


def resize(
    pixels: Pixels,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resampling: Image.Resampling,
) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(size, resampling, box))
