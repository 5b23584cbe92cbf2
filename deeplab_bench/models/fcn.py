"""Fully convolutional network, the baseline without context (Long et al., CVPR 2015)."""

from typing import Literal

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, OutputStride, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_classifier_head
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16


class FCN(Segmenter):
    """Classification of the last feature map, then upsampling (Section 4).

    ``output_stride`` 32 gives FCN-32s. On VGG-16, fc6 and fc7 are those of the classification
    network, as in the paper. On others, the head is torchvision's ``FCNHead`` without dropout. All
    upsampling is bilinear and fixed; the paper learns the inner upsampling, starting from bilinear.
    The skips are trained at once with the rest, from scores of zero; the paper adds them
    in stages (Section 4.2).

    Args:
        skips: number of shallower maps whose logits are added: 0 for FCN-32s, 1 for FCN-16s, 2 for
            FCN-8s. The maps are pool4 and pool3 of VGG-16, or the maps before the last one of
            other backbones.
        batch_norm: add batch normalisation to VGG-16. Other backbones always have it.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        skips: Literal[0, 1, 2] = 0,
        batch_norm: bool = False,
    ):
        super().__init__()
        if backbone == "vgg16":
            self.backbone = VGG16(
                output_stride=output_stride,
                kernel_size=7,
                rates=(max(1, 32 // output_stride),),
                channels=round(4096 * width),
                width=width,
                batch_norm=batch_norm,
            )
            self.classifier: nn.Module = build_score_layer(
                self.backbone.stage_channels[-1], num_classes
            )
        else:
            self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
            channels = self.backbone.stage_channels[-1]
            self.classifier = build_classifier_head(channels, channels // 4, num_classes)
        *shallower, _ = self.backbone.stage_channels
        self.skips = nn.ModuleList(
            build_score_layer(channels, num_classes) for channels in shallower[::-1][:skips]
        )

    def logits(self, images: Tensor) -> Tensor:
        *shallower, deepest = self.backbone(images)
        logits = self.classifier(deepest)
        for classify, features in zip(self.skips, reversed(shallower), strict=False):
            skipped = classify(features)
            logits = self.grid.resize_like(logits, skipped) + skipped
        return logits


def build_score_layer(in_channels: int, num_classes: int) -> nn.Conv2d:
    """Make a 1x1 convolution to the classes that starts at zero (Sections 4.2 and 4.3)."""
    conv = nn.Conv2d(in_channels, num_classes, kernel_size=1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
