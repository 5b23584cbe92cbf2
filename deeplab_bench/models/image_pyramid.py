"""Image pyramid: one network on several scales of the input (DeepLabv3, Figure 2a)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_classifier_head
from deeplab_bench.models.multi_scale import MultiScaleSegmenter, align, check_scales, rescale


class ImagePyramid(MultiScaleSegmenter):
    """The same weights at every scale of the image; the logits of all scales are fused.

    Args:
        scales: scales of the input; the last must be 1.
        fusion: the maximum over scales, ``max`` (DeepLabv2, Section 3.2), the ``mean`` over scales,
            or ``attention``, a sum weighted by a softmax over scales that is learned from their
            features (Chen et al., CVPR 2016, Section 3.2).
        supervise_scales: train with a loss on each scale, too.

    Raises:
        ValueError: ``scales`` does not end with 1.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        head_channels: Count,
        scales: Sequence[Positive] = (0.5, 0.75, 1.0),
        fusion: Literal["max", "mean", "attention"] = "max",
        supervise_scales: bool = True,
    ) -> None:
        super().__init__()
        self.scales, self.fusion = tuple(scales), fusion
        self.supervise_scales = supervise_scales
        self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
        check_scales(scales, self.grid)
        channels = self.backbone.stage_channels[-1]
        self.classifier = build_classifier_head(channels, head_channels, num_classes)
        if fusion == "attention":
            self.attention = build_classifier_head(
                channels * len(scales), head_channels, num_classes=len(scales)
            )

    def fused_and_scale_logits(self, images: Tensor) -> list[Tensor]:
        images = self.grid.pad(images)
        features = [self.backbone(rescale(images, scale))[-1] for scale in self.scales]
        aligned = align([self.classifier(x) for x in features], self.scales)
        return [self.fuse(torch.stack(aligned), features), *aligned]

    def fuse(self, logits: Tensor, features: list[Tensor]) -> Tensor:
        """Fuse the logits of S scales, (S, N, C, h, w) -> (N, C, h, w)."""
        if self.fusion == "max":
            return logits.amax(dim=0)
        if self.fusion == "mean":
            return logits.mean(dim=0)
        weights = self.attention(torch.cat(align(features, self.scales), dim=1)).softmax(dim=1)
        return torch.einsum("snchw,nshw->nchw", logits, weights)
