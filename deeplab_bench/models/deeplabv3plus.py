"""DeepLabv3+: ASPP with a decoder (Chen et al., ECCV 2018, Section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.aspp import AtrousPyramid
from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, Rate, ResNet
from deeplab_bench.models.layers import conv_bn_relu, resize_like
from deeplab_bench.models.segmenter import Segmenter


class DeepLabV3Plus(Segmenter):
    """The pyramid's features at stride 4, beside those of the first stage, through two 3x3s.

    Args:
        atrous_rates: as in ``ASPP``, whose image-level features are always there.
        head_channels: of the pyramid and the decoder; the paper's are 256.
        low_level_channels: that the first stage's features are reduced to; 48 is the best of
            Table 1.
        multi_grid: unit rates within block4.
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
    ) -> None:
        super().__init__()
        self.backbone = ResNet(
            backbone, output_stride=output_stride, width=width, multi_grid=multi_grid
        )
        low, *_, high = self.backbone.stage_channels
        self.pyramid = AtrousPyramid(high, head_channels, atrous_rates, image_pooling=True)
        self.reduce = conv_bn_relu(low, low_level_channels, kernel_size=1)
        self.decoder = nn.Sequential(
            conv_bn_relu(head_channels + low_level_channels, head_channels, kernel_size=3),
            conv_bn_relu(head_channels, head_channels, kernel_size=3),
        )
        self.classifier = nn.Conv2d(head_channels, num_classes, kernel_size=1)

    def scores(self, images: Tensor) -> Tensor:
        low, *_, high = self.backbone(images)
        context = resize_like(self.pyramid(high), low)
        return self.classifier(self.decoder(torch.cat([context, self.reduce(low)], dim=1)))
