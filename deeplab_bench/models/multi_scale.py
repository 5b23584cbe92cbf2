"""Multi-scale input: the same weights on several scales of the image (DeepLabv2, Section 3.2)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deeplab_bench.models.layers import resize_like
from deeplab_bench.models.segmenter import Segmenter


class MultiScaleSegmenter(Segmenter):
    """A network on one or several scales of the image, whose logits are fused.

    With ``supervise_scales`` and several scales, the loss is the sum of the losses of the fused
    logits and of each scale's own logits (DeepLabv2, Section 4.1.2; Chen et al., CVPR 2016, Section
    3.3).
    """

    scales: tuple[float, ...]
    supervise_scales: bool

    def fused_and_scale_logits(self, images: Tensor) -> list[Tensor]:
        """Compute the fused logits, then those of each scale at the size of its own map.

        (N, 3, H, W) -> (N, num_classes, h, w) each
        """
        raise NotImplementedError

    def logits(self, images: Tensor) -> Tensor:
        return self.fused_and_scale_logits(images)[0]

    def training_logits(self, images: Tensor) -> list[tuple[float, Tensor]]:
        fused, *scales = self.fused_and_scale_logits(images)
        supervised = scales if self.supervise_scales and len(self.scales) > 1 else []
        return [(1.0, logits) for logits in [fused, *supervised]]


def check_scales(scales: Sequence[float]) -> None:
    """Raise ``ValueError`` unless the last scale is 1. The logits have the size of its map."""
    if not scales or scales[-1] != 1:
        raise ValueError(f"scales {list(scales)} must end with 1.0, the scale of the logits")


def rescale(images: Tensor, scale: float, antialias: bool = False) -> Tensor:
    """Resize images (N, C, H, W) bilinearly by a factor, with ``antialias`` as Pillow does."""
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(
        images, size=size, mode="bilinear", align_corners=False, antialias=antialias
    )


def align(maps: Sequence[Tensor]) -> list[Tensor]:
    """Resize the maps (N, C, h, w) of all scales to the size of the last one."""
    return [resize_like(x, maps[-1]) for x in maps]
