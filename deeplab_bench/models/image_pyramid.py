"""Image pyramid: one network over several input scales (DeepLabv3, Figure 2a)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import conv_bn_relu, resize_like, upsample_logits


class ImagePyramid(nn.Module):
    """The same weights see the image at every scale; their score maps are fused.

    Args:
        scales: of the input, the last of them 1.
        fusion: ``max`` over scales (DeepLabv2, Section 4.2.2), their ``mean``, or ``attention``,
            a softmax over scales learned from their features (Chen et al., CVPR 2016).
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
    ) -> None:
        super().__init__()
        if not scales or scales[-1] != 1:
            raise ValueError(f"scales {list(scales)} must end with 1.0, the size of the logits")
        self.scales, self.fusion = tuple(scales), fusion
        self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
        channels = self.backbone.stage_channels[-1]
        self.classifier = nn.Sequential(
            conv_bn_relu(channels, head_channels, kernel_size=3),
            nn.Conv2d(head_channels, num_classes, kernel_size=1),
        )
        if fusion == "attention":
            self.attention = nn.Sequential(
                conv_bn_relu(channels * len(scales), head_channels, kernel_size=3),
                nn.Conv2d(head_channels, len(scales), kernel_size=1),
            )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, num_classes, H, W)"""
        features = [self.backbone(rescale(images, scale))[-1] for scale in self.scales]
        scores = torch.stack([resize_like(self.classifier(x), features[-1]) for x in features])
        if self.fusion == "max":
            logits = scores.amax(dim=0)
        elif self.fusion == "mean":
            logits = scores.mean(dim=0)
        else:
            aligned = torch.cat([resize_like(x, features[-1]) for x in features], dim=1)
            weights = self.attention(aligned).softmax(dim=1)
            logits = torch.einsum("snchw,nshw->nchw", scores, weights)
        return upsample_logits(logits, images)


def rescale(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    size = [max(1, round(side * scale)) for side in images.shape[-2:]]
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)
