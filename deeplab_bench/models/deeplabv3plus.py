"""DeepLabv3+: ASPP with a decoder (Chen et al., ECCV 2018, Section 3.1, Figure 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.aspp import AtrousPyramid
from deeplab_bench.models.backbone import (
    BackboneName,
    Count,
    OutputStride,
    Positive,
    Rate,
    Share,
)
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_conv_bn_relu
from deeplab_bench.models.segmenter import Segmenter


class DeepLabV3Plus(Segmenter):
    """A decoder that joins the pyramid with low-level features at stride 4.

    The pyramid is upsampled, concatenated with the reduced features of the first stage, and two 3x3
    convolutions follow.

    Args:
        atrous_rates: as in ``ASPP``; image-level features are always used.
        head_channels: channels of the pyramid and of the decoder; 256 in the paper.
        low_level_channels: channels after the reduction of the first stage's features; 48 is the
            best in Table 1.
        multi_grid: unit rates within block4 (DeepLabv3, Section 3.2.1).
        dropout: as in ``ASPP``, after the pyramid's projection.
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
        low_level_channels: Count = 48,
        multi_grid: Sequence[Rate] = (1, 2, 4),
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone, output_stride=output_stride, width=width, multi_grid=multi_grid
        )
        low, *_, high = self.backbone.stage_channels
        self.pyramid = AtrousPyramid(
            high, head_channels, atrous_rates, image_pooling=True, dropout=dropout
        )
        self.reduce = build_conv_bn_relu(low, low_level_channels, kernel_size=1)
        self.decoder = nn.Sequential(
            build_conv_bn_relu(head_channels + low_level_channels, head_channels, kernel_size=3),
            build_conv_bn_relu(head_channels, head_channels, kernel_size=3),
        )
        self.classifier = nn.Conv2d(head_channels, num_classes, kernel_size=1)

    def logits(self, images: Tensor) -> Tensor:
        low, *_, high = self.backbone(images)
        context = self.grid.resize_like(self.pyramid(high), low)
        return self.classifier(self.decoder(torch.cat([context, self.reduce(low)], dim=1)))
