"""Fully convolutional network: the baseline without context (Long et al., CVPR 2015)."""

from typing import Literal

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import classifier_head, resize_like, scores_layer
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16


class FCN(Segmenter):
    """Classify the last feature map and upsample: FCN-32s where ``output_stride`` is 32.

    On VGG-16 fc6 and fc7 are those of the classification network, as published; the head of a
    ResNet is torchvision's ``FCNHead`` without its dropout. Upsampling is bilinear throughout; the
    paper starts the inner steps so and learns them.

    Args:
        skips: of FCN-32s, FCN-16s and FCN-8s: add the scores of none, one or two shallower maps,
            those of pool4 and pool3, or of a ResNet's third and second stage.
        batch_norm: of ``VGG16``; ResNets always have it.
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
            self.classifier: nn.Module = scores_layer(self.backbone.stage_channels[-1], num_classes)
        else:
            self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
            channels = self.backbone.stage_channels[-1]
            self.classifier = classifier_head(channels, channels // 4, num_classes)
        *shallower, _ = self.backbone.stage_channels
        self.skips = nn.ModuleList(
            scores_layer(channels, num_classes) for channels in shallower[::-1][:skips]
        )

    def scores(self, images: Tensor) -> Tensor:
        *shallower, deepest = self.backbone(images)
        scores = self.classifier(deepest)
        for classify, features in zip(self.skips, reversed(shallower), strict=False):
            skipped = classify(features)
            scores = resize_like(scores, skipped) + skipped
        return scores
