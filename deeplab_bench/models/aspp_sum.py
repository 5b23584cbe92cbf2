"""Parallel atrous classifiers whose scores are summed: ASPP as in DeepLabv2, Section 3.2."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, Rate, ResNet
from deeplab_bench.models.layers import scores_layer
from deeplab_bench.models.multi_scale import align, check_scales, rescale
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16


class ASPPSum(Segmenter):
    """A branch for every rate: on VGG-16 its own fc6, fc7 and fc8, on ResNet one convolution.

    As published: no batch normalisation in the branches, no image pooling.

    Args:
        atrous_rates: of the 3x3 convolution of each branch, at ``output_stride`` 8 (2, 4, 8, 12)
            for ASPP-S and (6, 12, 18, 24) for ASPP-L.
        kernel_size: of that convolution.
        channels: filters of fc6 and fc7; VGG-16 alone.
        batch_norm: of ``VGG16``; ResNets always have it.
        scales: of the input, the last of them 1; the scores are the largest over them.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        atrous_rates: Sequence[Rate],
        kernel_size: Count = 3,
        channels: Count = 1024,
        batch_norm: bool = False,
        scales: Sequence[Positive] = (1.0,),
    ) -> None:
        super().__init__()
        check_scales(scales)
        if not atrous_rates:
            raise ValueError("atrous_rates [] leaves no branch")
        self.scales = tuple(scales)
        if backbone == "vgg16":
            self.backbone = VGG16(
                output_stride=output_stride,
                kernel_size=kernel_size,
                rates=atrous_rates,
                channels=channels,
                width=width,
                batch_norm=batch_norm,
            )
            classifiers = [scores_layer(channels, num_classes) for _ in atrous_rates]
        else:
            self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
            channels = self.backbone.stage_channels[-1]
            classifiers = [
                scores_layer(channels, num_classes, kernel_size, r) for r in atrous_rates
            ]
        self.classifiers = nn.ModuleList(classifiers)

    def scores(self, images: Tensor) -> Tensor:
        scores = [self.scores_at_one_scale(rescale(images, scale)) for scale in self.scales]
        return torch.stack(align(scores)).amax(dim=0)

    def scores_at_one_scale(self, images: Tensor) -> Tensor:
        branches = zip(self.classifiers, self.branch_features(images), strict=True)
        return torch.stack([classify(features) for classify, features in branches]).sum(dim=0)

    def branch_features(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> for every branch, what it classifies"""
        features, branches = self.backbone(images), len(self.classifiers)
        if isinstance(self.backbone, VGG16):
            return features[-branches:]
        return features[-1:] * branches
