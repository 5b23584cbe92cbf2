"""Multi-scale input: the same weights on several scales of the image (DeepLabv2, Section 3.2)."""

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from deeplab_bench.models.grid import Grid, sample

MAX_DENOMINATOR = 1000  # of a scale as a fraction


def check_scales(scales: Sequence[float], grid: Grid) -> None:
    """Raise ``ValueError`` unless the last scale is 1. The logits have the size of its map.

    Several scales also need positions on pixel 0, where all scales of an image coincide.
    """
    if not scales or scales[-1] != 1:
        raise ValueError(f"scales {list(scales)} must end with 1.0, the scale of the logits")
    if len(scales) > 1 and not grid.from_first_pixel:
        raise ValueError(
            f"scales {list(scales)} need a network that looks at the first pixel of the image: "
            "vgg16 of output_stride 32 does not"
        )


def rescale(images: Tensor, scale: float) -> Tensor:
    """Resize images (N, 3, H, W) bilinearly by a factor: pixel j shows pixel j / scale.

    A side of n pixels becomes (n - 1) * scale + 1, rounded up, as in DeepLab's code.
    """
    if scale == 1:
        return images
    factor = make_fraction(scale)
    size = [math.ceil((side - 1) * factor) + 1 for side in images.shape[-2:]]
    return sample(images, 1 / factor, size)


def undo_rescale(x: Tensor, scale: float, like: Tensor) -> Tensor:
    """Resize maps (N, C, h, w) of a rescaled image to those of the image itself, ``like``."""
    if scale == 1:
        return x
    return sample(x, make_fraction(scale), like.shape[-2:])


def align(maps: Sequence[Tensor], scales: Sequence[float]) -> list[Tensor]:
    """Resize the maps (N, C, h, w) of all scales to the size of the last one."""
    return [undo_rescale(x, scale, maps[-1]) for x, scale in zip(maps, scales, strict=True)]


def make_fraction(scale: float) -> Fraction:
    return Fraction(scale).limit_denominator(MAX_DENOMINATOR)
