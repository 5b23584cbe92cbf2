"""Multi-scale input: the same weights on several scales of the image (DeepLabv2, Section 3.2)."""

import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from deeplab_bench.models.grid import Grid, sample
from deeplab_bench.models.segmenter import Segmenter

MAX_DENOMINATOR = 1000  # of a scale as a fraction


class MultiScaleSegmenter(Segmenter):
    """A network on one or several scales of the image, whose logits are fused.

    With ``supervise_scales`` and several scales, the loss is the sum of the losses of the fused
    logits and of each scale's own (DeepLabv2, Section 4.1.2; Chen et al., CVPR 2016, Section 3.3).
    As in DeepLabv3's code, all logits have the size of the last scale's.
    """

    scales: tuple[float, ...]
    supervise_scales: bool

    def fused_and_scale_logits(self, images: Tensor) -> list[Tensor]:
        """Compute the fused logits, then those of each scale, resized to the size of the last.

        (N, 3, H, W) -> (N, num_classes, h, w) each
        """
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        return self.fused_and_scale_logits(images)[0]

    def training_logits(self, images: Tensor) -> list[tuple[float, Tensor]]:
        fused, *scales = self.fused_and_scale_logits(images)
        supervised = scales if self.supervise_scales and len(self.scales) > 1 else []
        return [(1.0, logits) for logits in [fused, *supervised]]


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


def rescale(images: Tensor, scale: float, antialias: bool = False) -> Tensor:
    """Resize images (N, 3, H, W) bilinearly by a factor: pixel j shows pixel j / scale.

    A side of n pixels becomes (n - 1) * scale + 1, rounded up, as in DeepLab's code. With
    ``antialias``, a pixel of a smaller image is a mean around its position, as Pillow computes it.
    """
    if scale == 1:
        return images
    factor = make_fraction(scale)
    size = [math.ceil((side - 1) * factor) + 1 for side in images.shape[-2:]]
    if antialias and factor < 1:
        rows, columns = (
            build_means(side, count, float(1 / factor), images)
            for side, count in zip(images.shape[-2:], size, strict=True)
        )
        return rows @ images @ columns.T
    return sample(images, 1 / factor, size)


def build_means(side: int, count: int, step: float, like: Tensor) -> Tensor:
    """Build a matrix (count, side) whose rows are weighted means of the pixels each ``step``.

    The weights fall from the pixel at 0, step, ... linearly to zero at the neighbours' positions.
    """
    positions = step * torch.arange(count, device=like.device)[:, None]
    distances = (torch.arange(side, device=like.device) - positions).abs()
    weights = (1 - distances / step).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.dtype)


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
