"""Cascaded atrous modules, block5 to block7 (DeepLabv3, Section 3.2, Figures 2c and 3b)."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from deeplab_bench.models.backbone import (
    BackboneName,
    OutputStride,
    Positive,
    Rate,
    StridedUnit,
)
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_classifier_head
from deeplab_bench.models.segmenter import Segmenter


class Cascade(Segmenter):
    """Copies of block4 in a row; the atrous rate doubles at each one that has no stride.

    A 1x1 convolution classifies the last map, which ends with a ReLU in ResNets. That of
    EfficientNet-Lite0 is linear, so there the head is that of ``FCN``.

    Args:
        cascaded_blocks: number of copies: 3 for block7, 0 for the plain network up to block4.
        multi_grid: unit rates within block4 and its copies (Section 3.2.1). (1, 2, 1) is the best
            in Table 3.
        stride_in: as in ``ResNet``; ``last`` in the paper.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        cascaded_blocks: Annotated[int, Ge(0)] = 3,
        multi_grid: Sequence[Rate] = (1, 2, 1),
        stride_in: StridedUnit = "first",
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(
            backbone,
            output_stride=output_stride,
            width=width,
            multi_grid=multi_grid,
            cascaded_blocks=cascaded_blocks,
            stride_in=stride_in,
        )
        channels = self.backbone.stage_channels[-1]
        self.classifier: nn.Module = (
            build_classifier_head(channels, channels // 4, num_classes)
            if backbone == "efficientnet_lite0"
            else nn.Conv2d(channels, num_classes, kernel_size=1)
        )

    def logits(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images)[-1])
