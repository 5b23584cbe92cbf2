"""Pyramid pooling (PSPNet; Zhao et al., CVPR 2017, Section 3.2)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import (
    average_over_grid,
    classifier_head,
    conv_bn_relu,
    maximum_over_grid,
    resize_like,
)
from deeplab_bench.models.segmenter import Segmenter

POOLING = {"average": average_over_grid, "max": maximum_over_grid}


class PSP(Segmenter):
    """Pools over ever finer grids of the last feature map, concatenated with it.

    Args:
        bins: cells per side of every level's grid.
        auxiliary_weight: of the loss on the scores of the third stage (Section 3.3; the paper's
            is 0.4), which training alone computes; 0 for none.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        head_channels: Count,
        bins: Sequence[Count] = (1, 2, 3, 6),
        pooling: Literal["average", "max"] = "average",
        auxiliary_weight: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
        *_, before, channels = self.backbone.stage_channels
        reduced = channels // max(1, len(bins))
        if not bins or not reduced:
            raise ValueError(f"bins {list(bins)} cannot share {channels} channels")
        self.bins, self.pool = tuple(bins), POOLING[pooling]
        self.reductions = nn.ModuleList(
            conv_bn_relu(channels, reduced, kernel_size=1) for _ in bins
        )
        self.classifier = classifier_head(
            channels + reduced * len(bins), head_channels, num_classes
        )
        self.auxiliary_weight = auxiliary_weight
        if auxiliary_weight:
            self.auxiliary = classifier_head(before, before // 4, num_classes)

    def scores(self, images: Tensor) -> Tensor:
        return self.pyramid_scores(self.backbone(images)[-1])

    def training_scores(self, images: Tensor) -> list[tuple[float, Tensor]]:
        if not self.auxiliary_weight:
            return super().training_scores(images)
        *_, before, features = self.backbone(images)
        return [
            (1.0, self.pyramid_scores(features)),
            (self.auxiliary_weight, self.auxiliary(before)),
        ]

    def pyramid_scores(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, num_classes, h, w)"""
        levels = [
            resize_like(reduce(self.pool(features, cells)), features)
            for cells, reduce in zip(self.bins, self.reductions, strict=True)
        ]
        return self.classifier(torch.cat([features, *levels], dim=1))
