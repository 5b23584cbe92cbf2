"""Atrous spatial pyramid pooling with summed logits (DeepLabv2, Section 3.2, Figure 7)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, Rate
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_conv_bn_relu, build_logits_layer
from deeplab_bench.models.multi_scale import MultiScaleSegmenter, align, check_scales, rescale
from deeplab_bench.models.vgg import VGG16


class ASPPSum(MultiScaleSegmenter):
    """One classifier for each atrous rate; the logits of all branches are summed.

    On VGG-16, a branch has its own fc6, fc7 and fc8; on a ResNet, it is one convolution. As in the
    paper, these have no batch normalisation, and there is no image pooling. The last map of
    EfficientNet-Lite0 is linear, so there a branch is fc6 with batch normalisation, and fc8.

    Args:
        atrous_rates: rate of the atrous convolution of each branch. The paper uses, at
            ``output_stride`` 8, (2, 4, 8, 12) for ASPP-S and (6, 12, 18, 24) for ASPP-L.
        kernel_size: kernel size of the atrous convolutions.
        channels: filters of fc6 and fc7. ResNets do not use it.
        batch_norm: add batch normalisation to VGG-16. Other backbones always have it.
        scales: scales of the input; the last must be 1. The logits are the maximum over the scales.
        supervise_scales: train with a loss on each scale, too.
        average_pool5: as in ``VGG16``; False in the authors' released ASPP. Only for VGG-16.
        head_std: standard deviation of the classifiers' random weights; 0.01 in the authors' code.

    Raises:
        ValueError: ``atrous_rates`` is empty, ``scales`` does not end with 1, or ``average_pool5``
            is used with another backbone than VGG-16, or ``kernel_size`` is even with
            EfficientNet-Lite0.
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
        supervise_scales: bool = True,
        average_pool5: bool = False,
        head_std: Positive = 0.01,
    ) -> None:
        super().__init__()
        if not atrous_rates:
            raise ValueError("atrous_rates [] gives no branch: give at least one rate")
        if average_pool5 and backbone != "vgg16":
            raise ValueError(f"average_pool5 needs backbone vgg16, but the backbone is {backbone}")
        self.scales, self.supervise_scales = tuple(scales), supervise_scales
        if backbone == "vgg16":
            self.backbone = VGG16(
                output_stride=output_stride,
                kernel_size=kernel_size,
                rates=atrous_rates,
                channels=channels,
                width=width,
                batch_norm=batch_norm,
                average_pool5=average_pool5,
            )
            classifiers: list[nn.Module] = [
                build_logits_layer(channels, num_classes, std=head_std) for _ in atrous_rates
            ]
        else:
            self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
            features = self.backbone.stage_channels[-1]
            if backbone == "efficientnet_lite0":
                if kernel_size % 2 == 0:
                    raise ValueError(f"kernel_size {kernel_size} must be odd with {backbone}")
                classifiers = [
                    nn.Sequential(
                        build_conv_bn_relu(features, channels, kernel_size, rate),
                        build_logits_layer(channels, num_classes, std=head_std),
                    )
                    for rate in atrous_rates
                ]
            else:
                classifiers = [
                    build_logits_layer(features, num_classes, kernel_size, rate, head_std)
                    for rate in atrous_rates
                ]
        check_scales(scales, self.grid)
        self.classifiers = nn.ModuleList(classifiers)

    def fused_and_scale_logits(self, images: Tensor) -> list[Tensor]:
        images = self.grid.pad(images)
        logits = [self.logits_at_one_scale(rescale(images, scale)) for scale in self.scales]
        aligned = align(logits, self.scales)
        return [torch.stack(aligned).amax(dim=0), *aligned]

    def logits_at_one_scale(self, images: Tensor) -> Tensor:
        branches = zip(self.classifiers, self.branch_features(images), strict=True)
        return torch.stack([classify(features) for classify, features in branches]).sum(dim=0)

    def branch_features(self, images: Tensor) -> list[Tensor]:
        """Compute the input (N, C, h, w) of each branch's classifier from images (N, 3, H, W)."""
        features, branches = self.backbone(images), len(self.classifiers)
        if isinstance(self.backbone, VGG16):
            return features[-branches:]
        return features[-1:] * branches
