"""Training batches made on a device from pixels in its memory: Pillow's crops, by its arithmetic.

Bilinear resampling, with a triangle filter that widens where an image shrinks, is a product with a
matrix for each axis, columns first. As in Pillow, weights have a fixed point and pixels are rounded
between the two. All sums are exact, so batches depend neither on the device nor on how many crops
it makes at a time. From Pillow's they differ where it takes rows first, by one grey level.
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
from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.settings.training import Training

COPIED_BYTES = 2**26  # at a time
# Of Pillow's weights, after the point. Products take them in halves, whose sums with pixels float32
# holds without rounding, from TensorFloat-32 too, unless an image shrinks to less than a fifteenth.
WEIGHT_BITS = 22
HALF_BITS = WEIGHT_BITS // 2


class Axis(NamedTuple):
    """What the crops of a batch show of their images along one axis.

    ``centres`` float64 (N, crop) is where the middle of each pixel of a crop lies on the image's
    side, ``nearest`` int64 (N, crop) the pixel there, -1 beyond the image; ``supports`` float64
    (N, 1) is half the width of the triangle filter, ``sides`` int64 (N, 1) the image's, ``longest``
    of them.
    """

    centres: Tensor
    nearest: Tensor
    supports: Tensor
    sides: Tensor
    longest: int


@dataclass(frozen=True)
class DeviceBatches:
    """Batches of the crops at ``positions``, made and left on ``device``.

    Images uint8 (N, 3, H, W), labels uint8 (N, H, W) at ``crop_size``. The split's pixels are in
    the device's memory while batches are drawn; no batch waits for the device.
    """

    split: Split
    training: Training
    seed: int
    positions: Positions
    device: torch.device

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = copied(self.split.images, self.device).view(-1, 3)
        labels = copied(self.split.labels, self.device)
        mean = torch.tensor(MEAN_PIXEL, dtype=torch.uint8, device=self.device).view(3, 1, 1)
        for positions in self.positions:
            starts, rows, columns = self.drawn(positions)
            inside = (rows.nearest >= 0).unsqueeze(2) & (columns.nearest >= 0).unsqueeze(1)
            nearest = pixel_index(starts, rows.nearest, columns.nearest, columns.sides)
            pixels = resampled(images, starts, rows, columns)
            yield (
                pixels.where(inside.unsqueeze(1), mean),
                labels[nearest.where(inside, 0)].where(inside, VOID),
            )

    def drawn(self, positions: Sequence[int]) -> tuple[Tensor, Axis, Axis]:
        """Where each crop's image starts among the pixels, and what the crop shows of its axes."""
        split, training, device = self.split, self.training, self.device
        draws = [draw(split.sizes, training, self.seed, position) for position in positions]
        indices, crops = zip(*draws, strict=True)
        starts = np.array([[split.starts[index]] for index in indices])
        heights, widths = zip(*(split.sizes[index] for index in indices), strict=True)
        height, width = training.crop_size
        upright = [False] * len(crops)
        mirrored = [crop.mirrored for crop in crops]
        return (
            sent(starts, device),
            axis_of([crop.rows for crop in crops], heights, height, upright, device),
            axis_of([crop.columns for crop in crops], widths, width, mirrored, device),
        )


def axis_of(
    windows: Sequence[Window],
    sides: Sequence[int],
    crop: int,
    mirrored: Sequence[bool],
    device: torch.device,
) -> Axis:
    filled, start, stop = (np.array(values)[:, None] for values in zip(*windows, strict=True))
    # Pillow's box is in single precision; it adds up the positions of the nearest pixels.
    start, stop = start.astype(np.float32), stop.astype(np.float32)
    scale = (stop - start).astype(np.float64) / filled
    places = np.arange(crop)
    centres = start + (np.minimum(places, filled - 1) + 0.5) * scale
    steps = np.hstack([start + scale / 2, scale.repeat(crop - 1, axis=1)])
    nearest = np.where(places < filled, steps.cumsum(axis=1), -1).astype(np.int64)
    for values in (centres, nearest):
        values[mirrored] = values[mirrored, ::-1]
    return Axis(
        sent(centres, device),
        sent(nearest, device),
        sent(np.maximum(scale, 1), device),
        sent(np.array(sides)[:, None], device),
        max(sides),
    )


def sent(values: NDArray[Any], device: torch.device) -> Tensor:
    """A copy on the device, which nobody waits for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def pixel_index(starts: Tensor, rows: Tensor, columns: Tensor, widths: Tensor) -> Tensor:
    """The index (N, h, w) among a split's pixels of those in rows (N, h) and columns (N, w)."""
    return (starts + rows * widths).unsqueeze(2) + columns.unsqueeze(1)


def resampled(images: Tensor, starts: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """uint8 (N, 3, crop_h, crop_w) from all the split's pixels, (pixels, 3); columns come first."""
    y, x = (
        torch.arange(side.longest, device=images.device).minimum(side.sides - 1)
        for side in (rows, columns)
    )
    pixels = images[pixel_index(starts, y, x, columns.sides)]  # (N, H, W, 3)
    by_rows = pixels.movedim(3, 2).flatten(1, 2).float()
    across = rounded(by_rows @ interpolation(columns).mT, dim=2)  # (N, H * 3, crop_w)
    by_columns = across.unflatten(1, (-1, 3)).flatten(2).float()
    down = rounded(interpolation(rows) @ by_columns, dim=1)  # (N, crop_h, 3 * crop_w)
    return down.unflatten(2, (3, -1)).movedim(2, 1).byte()


def interpolation(axis: Axis) -> Tensor:
    """Matrices (N, 2 * crop, longest): the weights' upper halves, and below them the lower ones."""
    pixels = torch.arange(axis.longest, device=axis.sides.device) + 0.5
    middles = pixels.where(pixels < axis.sides, torch.inf).unsqueeze(1)
    distances = (middles - axis.centres.unsqueeze(2)).abs() / axis.supports.unsqueeze(2)
    # Of float64, on a grid on which their sums are exact, too.
    weights = ((1 - distances) * 2**44).clamp(min=0).round()
    fixed = (weights * 2**WEIGHT_BITS / weights.sum(dim=2, keepdim=True) + 0.5).int()
    return torch.cat([fixed >> HALF_BITS, fixed & (2**HALF_BITS - 1)], dim=1).float()


def rounded(products: Tensor, dim: int) -> Tensor:
    """int32 pixels from the products with both halves of the weights, one after the other."""
    upper, lower = products.int().chunk(2, dim)
    return ((upper << HALF_BITS) + lower + 2 ** (WEIGHT_BITS - 1)) >> WEIGHT_BITS


def copied(pixels: Pixels, device: torch.device) -> Tensor:
    """The pixels on the device, copied piece by piece."""
    there = torch.empty(len(pixels), dtype=torch.uint8, device=device)
    for start in range(0, len(pixels), COPIED_BYTES):
        piece = np.array(pixels[start : start + COPIED_BYTES])
        there[start : start + COPIED_BYTES] = torch.from_numpy(piece)
    return there


def fits(split: Split, device: torch.device) -> bool:
    """Whether a split's pixels take no more than half of the free memory of a GPU."""
    free, _ = torch.cuda.mem_get_info(device)
    return split.images.nbytes + split.labels.nbytes <= free // 2
