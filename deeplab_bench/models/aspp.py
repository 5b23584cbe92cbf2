"""Atrous spatial pyramid pooling with image-level features (DeepLabv3, Section 3.3, Figure 5)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.backbone import (
    BackboneName,
    Count,
    OutputStride,
    Positive,
    Rate,
    Share,
    StridedUnit,
)
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_conv_bn_relu
from deeplab_bench.models.segmenter import Segmenter


class ASPP(Segmenter):
    """Parallel atrous convolutions on the last feature map, concatenated and projected.

    Args:
        atrous_rates: rates of the 3x3 branches. The paper uses (6, 12, 18) at ``output_stride`` 16
            and doubles them at 8.
        image_pooling: add the branch of image-level features.
        multi_grid: unit rates within block4 (Section 3.2.1).
        dropout: share of the projection's values that training sets to zero; 0.1 in the authors'
            code, not stated in the paper.
        stride_in: as in ``ResNet``; ``last`` in the paper.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        atrous_rates: Sequence[Rate],
        head_channels: Count,
        image_pooling: bool = True,
        multi_grid: Sequence[Rate] = (1, 2, 4),
        dropout: Share = 0.0,
        stride_in: StridedUnit = "first",
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone,
            output_stride=output_stride,
            width=width,
            multi_grid=multi_grid,
            stride_in=stride_in,
        )
        self.pyramid = AtrousPyramid(
            self.backbone.stage_channels[-1], head_channels, atrous_rates, image_pooling, dropout
        )
        self.classifier = nn.Conv2d(head_channels, num_classes, kernel_size=1)

    def logits(self, images: Tensor) -> Tensor:
        return self.classifier(self.pyramid(self.backbone(images)[-1]))


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches, a 1x1 projection and dropout.

    The branches are a 1x1 convolution, a 3x3 convolution for each rate and image-level features.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        atrous_rates: Sequence[Rate],
        image_pooling: bool,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                build_conv_bn_relu(in_channels, channels, kernel_size=1),
                *(
                    build_conv_bn_relu(in_channels, channels, kernel_size=3, rate=r)
                    for r in atrous_rates
                ),
            ]
        )
        if image_pooling:
            self.branches.append(ImageLevelFeatures(in_channels, channels))
        self.project = build_conv_bn_relu(len(self.branches) * channels, channels, kernel_size=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, in_channels, h, w) to (N, channels, h, w)."""
        x = self.project(torch.cat([branch(features) for branch in self.branches], dim=1))
        return self.dropout(x)


class ImageLevelFeatures(nn.Sequential):
    """Global average pooling and a 1x1 convolution, repeated at every position."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1), build_conv_bn_relu(in_channels, channels, kernel_size=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).expand(-1, -1, *features.shape[-2:])
