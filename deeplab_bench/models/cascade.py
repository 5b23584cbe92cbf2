"""Deeper with atrous convolution: block5-7 in cascade (DeepLabv3, Section 3.2, Figure 2c)."""

from collections.abc import Sequence
from typing import Annotated

from annotated_types import Ge
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, OutputStride, Positive, Rate, ResNet
from deeplab_bench.models.segmenter import Segmenter


class Cascade(Segmenter):
    """Replicas of block4 after it, the atrous rate doubling at each where the stride is held.

    Args:
        cascaded_blocks: 3 reaches block7; 0 is the plain network to block4.
        multi_grid: unit rates within block4 and its replicas (Section 3.2.1); (1, 2, 1) is the best
            of Table 3.
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
    ) -> None:
        super().__init__()
        self.backbone = ResNet(
            backbone,
            output_stride=output_stride,
            width=width,
            multi_grid=multi_grid,
            cascaded_blocks=cascaded_blocks,
        )
        self.classifier = nn.Conv2d(self.backbone.stage_channels[-1], num_classes, kernel_size=1)

    def scores(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images)[-1])
