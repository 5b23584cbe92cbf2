"""Atrous classifier with a large field of view (DeepLabv1, Section 3.2; DeepLabv2, Table 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.aspp_sum import ASPPSum
from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, Rate
from deeplab_bench.models.layers import build_logits_layer

SIDE_CHANNELS = 128


class LargeFOV(ASPPSum):
    """``ASPPSum`` with one branch, optionally with features of lower layers.

    The papers use, on VGG-16, (``kernel_size``, ``atrous_rate``, ``channels``) of (7, 4, 4096),
    (4, 4, 4096), (4, 8, 4096) and, called LargeFOV, (3, 12, 1024). On others, ``kernel_size`` 1
    gives the plain network.

    Args:
        kernel_size: kernel size of fc6 on VGG-16, or of the only convolution on others.
        atrous_rate: rate of that convolution, at ``output_stride`` 8 in the papers.
        channels: filters of fc6 and fc7. ResNets do not use it.
        batch_norm: add batch normalisation to VGG-16. Other backbones always have it.
        multi_scale_features: concatenate fc7 with features of the image and of the first four
            pools, each after two convolutions (DeepLab-MSc; DeepLabv1, Section 4.3). Only for
            VGG-16.
        average_pool5: as in ``VGG16``; True in the authors' released LargeFOV. Only for VGG-16.
        scales, supervise_scales: as in ``ASPPSum``.
        head_std: as in ``ASPPSum``.

    Raises:
        ValueError: as in ``ASPPSum``, or ``multi_scale_features`` is used without VGG-16 or at
            output stride 32.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        kernel_size: Count = 3,
        atrous_rate: Rate = 12,
        channels: Count = 1024,
        batch_norm: bool = False,
        multi_scale_features: bool = False,
        scales: Sequence[Positive] = (1.0,),
        supervise_scales: bool = True,
        average_pool5: bool = False,
        head_std: Positive = 0.01,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            backbone=backbone,
            width=width,
            output_stride=output_stride,
            atrous_rates=(atrous_rate,),
            kernel_size=kernel_size,
            channels=channels,
            batch_norm=batch_norm,
            scales=scales,
            supervise_scales=supervise_scales,
            average_pool5=average_pool5,
            head_std=head_std,
        )
        self.sides = nn.ModuleList()
        if multi_scale_features:
            if backbone != "vgg16":
                raise ValueError(
                    f"multi_scale_features needs backbone vgg16, but the backbone is {backbone}"
                )
            if not self.grid.from_first_pixel:
                raise ValueError(
                    f"multi_scale_features needs output_stride 8 or 16, not {output_stride}: at 32 "
                    "the positions of fc7 lie between those of the features"
                )
            planes = [3, *self.backbone.stage_channels[:4]]
            strides = [1, *self.backbone.stage_strides[:4]]
            self.sides.extend(
                build_side_layers(c, stride=output_stride // s)
                for c, s in zip(planes, strides, strict=True)
            )
            in_channels = channels + SIDE_CHANNELS * len(self.sides)
            self.classifiers = nn.ModuleList(
                [build_logits_layer(in_channels, num_classes, std=head_std)]
            )

    def branch_features(self, images: Tensor) -> list[Tensor]:
        if not self.sides:
            return super().branch_features(images)
        images = self.grid.pad(images)
        *pools, fc7 = self.backbone(images)
        sides = zip(self.sides, [images, *pools], strict=True)
        return [torch.cat([fc7, *(side(x) for side, x in sides)], dim=1)]


def build_side_layers(in_channels: int, stride: int) -> nn.Sequential:
    """Make two convolutions; the first has the ``stride`` that leads to the size of fc7's map."""
    return nn.Sequential(
        nn.Conv2d(in_channels, SIDE_CHANNELS, kernel_size=3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(SIDE_CHANNELS, SIDE_CHANNELS, kernel_size=1),
        nn.ReLU(),
    )
