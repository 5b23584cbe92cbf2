"""Random augmentation: scale, crop and horizontal flip, and the crop itself made by Pillow.

Training sees an endless stream of crops, one shuffled epoch after the other. A crop depends only on
the seed and its position in this stream, so any process can make it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.settings.training import Training

# The padding of crops, for every backbone.
MEAN_PIXEL = tuple(round(255 * value) for value in IMAGENET.mean)


class Window(NamedTuple):
    """The part of an image that a crop shows along one axis.

    It goes from ``start`` to ``stop`` in pixels of the image before rescaling, and fills the first
    ``filled`` pixels of the crop; the rest is padding.
    """

    filled: int
    start: float
    stop: float


@dataclass(frozen=True)
class Crop:
    """The random choices for an image and its label; mirroring comes last, after padding."""

    rows: Window
    columns: Window
    mirrored: bool


@dataclass(frozen=True)
class Positions:
    """A batch sampler: the positions in the stream of one process's share of each batch."""

    training: Training
    first_iteration: int
    rank: int
    world_size: int

    def __len__(self) -> int:
        return self.training.iterations - self.first_iteration

    def __iter__(self) -> Iterator[list[int]]:
        size = self.training.batch_size
        share = size // self.world_size
        for iteration in range(self.first_iteration, self.training.iterations):
            first = iteration * size + self.rank * share
            yield list(range(first, first + share))


def draw(
    sizes: Sequence[tuple[int, int]], training: Training, seed: int, position: int
) -> tuple[int, Crop]:
    """Draw the index of the image at a position of the stream, and its crop.

    ``sizes`` are the (height, width) of all images.
    """
    epoch, place = divmod(position, len(sizes))
    index = int(draw_order(len(sizes), seed, epoch)[place])
    return index, draw_crop(sizes[index], training, np.random.default_rng((seed, 1, position)))


@lru_cache(maxsize=2)  # A batch may contain images of two epochs.
def draw_order(images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw the order of the images in an epoch, int64 (images,)."""
    return np.random.default_rng((seed, 0, epoch)).permutation(images)


def draw_crop(size: tuple[int, int], training: Training, random: np.random.Generator) -> Crop:
    """Draw a crop of ``training.crop_size`` from an image of ``size``, both (height, width)."""
    scale = random.uniform(*training.random_scale)
    rows, columns = (
        compute_window(side, crop, scale, random.random())
        for side, crop in zip(size, training.crop_size, strict=True)
    )
    return Crop(rows, columns, training.horizontal_flip and random.random() < 0.5)


def compute_window(side: int, crop: int, scale: float, place: float) -> Window:
    """Compute the part of a side of ``side`` pixels that a crop of ``crop`` pixels shows.

    The side is rescaled by ``scale`` first. ``place`` in [0, 1) chooses among the possible
    positions of the crop.
    """
    scaled = max(1, round(side * scale))
    filled = min(crop, scaled)
    start = int(place * (scaled - filled + 1))
    return Window(filled, start * side / scaled, (start + filled) * side / scaled)


def augment(
    image: Pixels, label: Pixels, crop: Crop, crop_size: tuple[int, int]
) -> tuple[Pixels, Pixels]:
    """Cut out a crop, (h, w, 3) and (h, w); outside the image are mean pixels and void labels."""
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
) -> Pixels:
    """Resize the part of ``pixels`` in ``box`` (left, top, right, bottom) to (width, height)."""
    return np.asarray(Image.fromarray(pixels).resize(size, resampling, box))
