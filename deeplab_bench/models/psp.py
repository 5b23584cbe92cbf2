"""Pyramid pooling (PSPNet; Zhao et al., CVPR 2017, Section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import (
    average_over_grid,
    conv_bn_relu,
    resize_like,
    upsample_logits,
)


class PSP(nn.Module):
    """Averages over ever finer grids of the last feature map, concatenated with it.

    Args:
        bins: cells per side of every level's grid.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        head_channels: Count,
        bins: Sequence[Count] = (1, 2, 3, 6),
    ) -> None:
        super().__init__()
        self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
        channels = self.backbone.stage_channels[-1]
        reduced = channels // max(1, len(bins))
        if not bins or not reduced:
            raise ValueError(f"bins {list(bins)} cannot share {channels} channels")
        self.bins = tuple(bins)
        self.reductions = nn.ModuleList(
            conv_bn_relu(channels, reduced, kernel_size=1) for _ in bins
        )
        self.classifier = nn.Sequential(
            conv_bn_relu(channels + reduced * len(bins), head_channels, kernel_size=3),
            nn.Conv2d(head_channels, num_classes, kernel_size=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, num_classes, H, W)"""
        features = self.backbone(images)[-1]
        levels = [
            resize_like(reduce(average_over_grid(features, cells)), features)
            for cells, reduce in zip(self.bins, self.reductions, strict=True)
        ]
        return upsample_logits(self.classifier(torch.cat([features, *levels], dim=1)), images)
