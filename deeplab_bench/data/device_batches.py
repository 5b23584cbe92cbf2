"""Training batches made on a GPU that holds the whole split, with Pillow's arithmetic.

Bilinear resampling is a product with one matrix per axis, columns first. Its triangle filter gets
wider when an image is made smaller. As in Pillow, the weights are fixed-point numbers and pixels
are rounded between the two products. All sums are exact, so a batch depends neither on the device
nor on the number of crops made at once. Pillow resamples some images rows first; there, pixels
differ from Pillow's by at most one grey level.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deeplab_bench.data.augmentation import MEAN_PIXEL, Positions, Window, draw
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.settings.training import Training

COPIED_BYTES = 2**26  # copied to the device at once
# Pillow's weights have this many bits after the point. Products use the upper and the lower half of
# the bits one at a time: so all sums are exact in float32, even if it multiplies in TensorFloat-32,
# unless an image shrinks to less than a fifteenth.
WEIGHT_BITS = 22
HALF_BITS = WEIGHT_BITS // 2


class Axis(NamedTuple):
    """The parts of their images that the crops of a batch show along one axis.

    Attributes:
        centres: float64 (N, crop), the position in the image of the middle of each crop pixel.
        nearest: int64 (N, crop), the index of the image's pixel there; -1 outside the image.
        supports: float64 (N, 1), half the width of the triangle filter in pixels.
        sides: int64 (N, 1), the image's number of pixels along this axis.
        longest: the largest of ``sides``.
    """

    centres: Tensor
    nearest: Tensor
    supports: Tensor
    sides: Tensor
    longest: int


@dataclass(frozen=True)
class DeviceBatches:
    """Batches of the crops at ``positions`` in the stream, on ``device``.

    Images are uint8 (N, 3, H, W), labels uint8 (N, H, W), both of ``crop_size``. While it iterates,
    the split's pixels are in the device's memory, and no batch makes the CPU wait for the device.
    """

    split: Split
    training: Training
    seed: int
    positions: Positions
    device: torch.device

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = copy_to_device(self.split.images, self.device).view(-1, 3)
        labels = copy_to_device(self.split.labels, self.device)
        mean = torch.tensor(MEAN_PIXEL, dtype=torch.uint8, device=self.device).view(3, 1, 1)
        for positions in self.positions:
            starts, rows, columns = self.draw_crops(positions)
            inside = (rows.nearest >= 0).unsqueeze(2) & (columns.nearest >= 0).unsqueeze(1)
            nearest = index_pixels(starts, rows.nearest, columns.nearest, columns.sides)
            pixels = resample(images, starts, rows, columns)
            yield (
                pixels.where(inside.unsqueeze(1), mean),
                labels[nearest.where(inside, 0)].where(inside, VOID),
            )

    def draw_crops(self, positions: Sequence[int]) -> tuple[Tensor, Axis, Axis]:
        """Draw crops; return the first pixels (N, 1) of their images, their rows and columns."""
        split, training, device = self.split, self.training, self.device
        draws = [draw(split.sizes, training, self.seed, position) for position in positions]
        indices, crops = zip(*draws, strict=True)
        starts = np.array([[split.starts[index]] for index in indices])
        heights, widths = zip(*(split.sizes[index] for index in indices), strict=True)
        height, width = training.crop_size
        upright = [False] * len(crops)
        mirrored = [crop.mirrored for crop in crops]
        return (
            send(starts, device),
            make_axis([crop.rows for crop in crops], heights, height, upright, device),
            make_axis([crop.columns for crop in crops], widths, width, mirrored, device),
        )


def make_axis(
    windows: Sequence[Window],
    sides: Sequence[int],
    crop: int,
    mirrored: Sequence[bool],
    device: torch.device,
) -> Axis:
    """Compute where the pixels of each crop lie in its image, as Pillow does, along one axis.

    Args:
        windows: the part of each image that the crop shows, of length N.
        sides: each image's number of pixels along this axis, of length N.
        crop: the number of pixels of a crop along this axis.
        mirrored: whether each crop is mirrored along this axis, of length N.
        device: where to put the result.
    """
    filled, start, stop = (np.array(values)[:, None] for values in zip(*windows, strict=True))
    # Pillow stores the box in single precision, and sums up the steps between nearest pixels.
    start, stop = start.astype(np.float32), stop.astype(np.float32)
    scale = (stop - start).astype(np.float64) / filled
    places = np.arange(crop)
    centres = start + (np.minimum(places, filled - 1) + 0.5) * scale
    steps = np.hstack([start + scale / 2, scale.repeat(crop - 1, axis=1)])
    nearest = np.where(places < filled, steps.cumsum(axis=1), -1).astype(np.int64)
    for values in (centres, nearest):
        values[mirrored] = values[mirrored, ::-1]
    return Axis(
        send(centres, device),
        send(nearest, device),
        send(np.maximum(scale, 1), device),
        send(np.array(sides)[:, None], device),
        max(sides),
    )


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to the device without waiting for the end of the copy."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def index_pixels(starts: Tensor, rows: Tensor, columns: Tensor, widths: Tensor) -> Tensor:
    """Return the indices (N, h, w) in the split's pixels of rows (N, h) and columns (N, w)."""
    return (starts + rows * widths).unsqueeze(2) + columns.unsqueeze(1)


def resample(images: Tensor, starts: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Resample crops, uint8 (N, 3, h, w), from the pixels (pixels, 3) of the split."""
    y, x = (
        torch.arange(side.longest, device=images.device).minimum(side.sides - 1)
        for side in (rows, columns)
    )
    pixels = images[index_pixels(starts, y, x, columns.sides)]  # (N, H, W, 3)
    by_rows = pixels.movedim(3, 2).flatten(1, 2).float()
    across = round_products(by_rows @ make_weights(columns).mT, dim=2)  # (N, H * 3, crop_w)
    by_columns = across.unflatten(1, (-1, 3)).flatten(2).float()
    down = round_products(make_weights(rows) @ by_columns, dim=1)  # (N, crop_h, 3 * crop_w)
    return down.unflatten(2, (3, -1)).movedim(2, 1).byte()


def make_weights(axis: Axis) -> Tensor:
    """Return bilinear weights as matrices (N, 2 * crop, longest): upper halves, then lower ones."""
    pixels = torch.arange(axis.longest, device=axis.sides.device) + 0.5
    middles = pixels.where(pixels < axis.sides, torch.inf).unsqueeze(1)
    distances = (middles - axis.centres.unsqueeze(2)).abs() / axis.supports.unsqueeze(2)
    # Multiples of 2^-44, so that their sums are exact in float64.
    weights = ((1 - distances) * 2**44).clamp(min=0).round()
    fixed = (weights * 2**WEIGHT_BITS / weights.sum(dim=2, keepdim=True) + 0.5).int()
    return torch.cat([fixed >> HALF_BITS, fixed & (2**HALF_BITS - 1)], dim=1).float()


def round_products(products: Tensor, dim: int) -> Tensor:
    """Return int32 pixels from the products with the two halves, stored one after the other."""
    upper, lower = products.int().chunk(2, dim)
    return ((upper << HALF_BITS) + lower + 2 ** (WEIGHT_BITS - 1)) >> WEIGHT_BITS


def copy_to_device(pixels: Pixels, device: torch.device) -> Tensor:
    """Copy the pixels to the device in pieces of ``COPIED_BYTES``."""
    there = torch.empty(len(pixels), dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), COPIED_BYTES):
        piece = np.array(pixels[start : start + COPIED_BYTES])
        there[start : start + COPIED_BYTES] = torch.from_numpy(piece)
    return there


def fits(split: Split, device: torch.device) -> bool:
    """Return whether a split's pixels fit in half of the free memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return split.images.nbytes + split.labels.nbytes <= free // 2
