"""One atrous classifier with a large field of view (DeepLabv1, Section 3.2; v2, Table 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.aspp_sum import ASPPSum
from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, Rate
from deeplab_bench.models.layers import scores_layer

SIDE_CHANNELS = 128


class LargeFOV(ASPPSum):
    """fc6 with ``kernel_size`` and ``rate``, fc7, fc8 on VGG-16; a single convolution on ResNet.

    On VGG-16 the papers have (kernel_size, rate, channels) of (7, 4, 4096), (4, 4, 4096),
    (4, 8, 4096) and, named LargeFOV, (3, 12, 1024). On ResNet kernel_size 1 is the plain network.

    Args:
        multi_scale_features: classify with fc7 what two convolutions make of the image and of
            each of the first four pools (DeepLab-MSc; v1, Section 4.3); VGG-16 alone.
        scales: of the input, as in ``ASPPSum``.

    Raises:
        ValueError: the backbone has no such layers, or no such output stride.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        kernel_size: Count = 3,
        rate: Rate = 12,
        channels: Count = 1024,
        batch_norm: bool = False,
        multi_scale_features: bool = False,
        scales: Sequence[Positive] = (1.0,),
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            backbone=backbone,
            width=width,
            output_stride=output_stride,
            atrous_rates=(rate,),
            kernel_size=kernel_size,
            channels=channels,
            batch_norm=batch_norm,
            scales=scales,
        )
        self.sides = nn.ModuleList()
        if multi_scale_features:
            if backbone != "vgg16":
                raise ValueError(f"multi_scale_features are of backbone vgg16, not {backbone}")
            planes = [3, *self.backbone.stage_channels[:4]]
            strides = [1, *self.backbone.stage_strides[:4]]
            self.sides.extend(
                side_features(c, stride=output_stride // s)
                for c, s in zip(planes, strides, strict=True)
            )
            everything = channels + SIDE_CHANNELS * len(self.sides)
            self.classifiers = nn.ModuleList([scores_layer(everything, num_classes)])

    def branch_features(self, images: Tensor) -> list[Tensor]:
        if not self.sides:
            return super().branch_features(images)
        *pools, fc7 = self.backbone(images)
        sides = zip(self.sides, [images, *pools], strict=True)
        return [torch.cat([fc7, *(side(x) for side, x in sides)], dim=1)]


def side_features(in_channels: int, stride: int) -> nn.Sequential:
    """Two convolutions, of which the first takes the ``stride`` to the map of fc7."""
    return nn.Sequential(
        nn.Conv2d(in_channels, SIDE_CHANNELS, kernel_size=3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(SIDE_CHANNELS, SIDE_CHANNELS, kernel_size=1),
        nn.ReLU(),
    )
