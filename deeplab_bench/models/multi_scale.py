"""Multi-scale input: the same weights on several scales of the image (DeepLabv2, Section 3.2)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deeplab_bench.models.layers import resize_like


def check_scales(scales: Sequence[float]) -> None:
    """Raise ``ValueError`` unless the last scale is 1. The logits have the size of its map."""
    if not scales or scales[-1] != 1:
        raise ValueError(f"scales {list(scales)} must end with 1.0, the scale of the logits")


def rescale(images: Tensor, scale: float) -> Tensor:
    """Resize images (N, C, H, W) bilinearly by a factor."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def align(maps: Sequence[Tensor]) -> list[Tensor]:
    """Resize the maps (N, C, h, w) of all scales to the size of the last one."""
    return [resize_like(x, maps[-1]) for x in maps]
