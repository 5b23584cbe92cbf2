"""Decoder of U-Net (Ronneberger et al., MICCAI 2015, Section 2, Figure 1)."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, OutputStride, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_conv_bn_relu
from deeplab_bench.models.segmenter import Segmenter


class UNet(Segmenter):
    """A decoder from the last feature map to stride 4 that concatenates the encoder's maps.

    At each stage, two 3x3 convolutions follow the concatenation; their output has as many channels
    as the encoder's map. Upsampling is bilinear; the paper learns it. The decoder ends at the first
    map of the backbone; the paper's ends at the size of the image.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
        channels = self.backbone.stage_channels
        self.merges = nn.ModuleList(
            nn.Sequential(
                build_conv_bn_relu(skip + below, skip, kernel_size=3),
                build_conv_bn_relu(skip, skip, kernel_size=3),
            )
            for skip, below in pairwise(channels)
        )
        self.classifier = nn.Conv2d(channels[0], num_classes, kernel_size=1)

    def logits(self, images: Tensor) -> Tensor:
        *skips, x = self.backbone(images)
        for merge, skip in reversed(list(zip(self.merges, skips, strict=True))):
            x = merge(torch.cat([skip, self.grid.resize_like(x, skip)], dim=1))
        return self.classifier(x)
