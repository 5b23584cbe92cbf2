"""Augmented crops: which image, at which scale and place, mirrored or not, and as Pillow cuts it.

What is drawn depends on the seed and the position in the endless stream of shuffled epochs alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.settings.training import Training

# ImageNet's, as torchvision's weights expect.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
MEAN_PIXEL = tuple(round(255 * value) for value in MEAN)


class Window(NamedTuple):
    """What a crop shows of an image's side: the first ``filled`` pixels, ``start`` to ``stop``.

    ``start`` and ``stop`` are in pixels of the image, before it is rescaled.
    """

    filled: int
    start: float
    stop: float


@dataclass(frozen=True)
class Crop:
    """What is drawn for a pair of image and label; mirrored when it is cut out and padded."""

    rows: Window
    columns: Window
    mirrored: bool


@dataclass(frozen=True)
class Positions:
    """A process's share of each batch, as positions in the stream."""

    training: Training
    first_iteration: int
    rank: int
    processes: int

    def __len__(self) -> int:
        return self.training.iterations - self.first_iteration

    def __iter__(self) -> Iterator[list[int]]:
        size = self.training.batch_size
        share = size // self.processes
        for iteration in range(self.first_iteration, self.training.iterations):
            first = iteration * size + self.rank * share
            yield list(range(first, first + share))


def draw(
    sizes: Sequence[tuple[int, int]], training: Training, seed: int, position: int
) -> tuple[int, Crop]:
    """The index of the image at a position of the stream, and its crop.

    ``sizes`` are the (height, width) of all images.
    """
    epoch, place = divmod(position, len(sizes))
    index = int(shuffled(len(sizes), seed, epoch)[place])
    return index, draw_crop(sizes[index], training, np.random.default_rng((seed, 1, position)))


@lru_cache(maxsize=2)  # A batch may lie in two epochs.
def shuffled(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the images in an epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(images)


def draw_crop(size: tuple[int, int], training: Training, random: np.random.Generator) -> Crop:
    """A crop of ``training.crop_size`` at random from a pair of ``size``, (height, width)."""
    scale = random.uniform(*training.random_scale)
    rows, columns = (
        window(side, crop, scale, random.random())
        for side, crop in zip(size, training.crop_size, strict=True)
    )
    return Crop(rows, columns, training.horizontal_flip and random.random() < 0.5)


def window(side: int, crop: int, scale: float, place: float) -> Window:
    """What a crop shows of a side that is rescaled.

    ``place`` in [0, 1) says where among the possible positions the crop lies.
    """
    scaled = max(1, round(side * scale))
    filled = min(crop, scaled)
    start = int(place * (scaled - filled + 1))
    return Window(filled, start * side / scaled, (start + filled) * side / scaled)


def augment(
    image: Pixels, label: Pixels, crop: Crop, crop_size: tuple[int, int]
) -> tuple[Pixels, Pixels]:
    """The crop of a pair; beyond the image are mean pixels, and void in the label."""
    filled = (crop.columns.filled, crop.rows.filled)
    box = (crop.columns.start, crop.rows.start, crop.columns.stop, crop.rows.stop)
    pixels = np.full((*crop_size, 3), MEAN_PIXEL, dtype=np.uint8)
    truth = np.full(crop_size, VOID, dtype=np.uint8)
    inside = np.s_[: crop.rows.filled, : crop.columns.filled]
    pixels[inside] = resize(image, filled, box, Image.Resampling.BILINEAR)
    truth[inside] = resize(label, filled, box, Image.Resampling.NEAREST)
    if crop.mirrored:
        pixels, truth = pixels[:, ::-1].copy(), truth[:, ::-1].copy()
    return pixels, truth


def resize(
    pixels: Pixels,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resampling: Image.Resampling,
) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).resize(size, resampling, box))
