"""Pyramid scene parsing network, PSPNet (Zhao et al., CVPR 2017, Section 3.2, Figure 3)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import (
    adaptive_average_pool,
    adaptive_max_pool,
    build_classifier_head,
    build_conv_bn_relu,
    resize_cells,
)
from deeplab_bench.models.segmenter import Segmenter

POOLING = {"average": adaptive_average_pool, "max": adaptive_max_pool}


class PSP(Segmenter):
    """Pooling over grids of several sizes, concatenated with the last feature map.

    A cell's value lies in its middle when it is resized; in the released code, the outer cells lie
    on the map's corners.

    Args:
        bins: cells on each side of the grid, one number for each level.
        pooling: how the positions of a cell are pooled.
        dimension_reduction: reduce each of the N levels to 1/N of the channels by a 1x1 convolution
            with batch normalisation and ReLU (DR in Table 1). Without it, the pooled features are
            concatenated as they are.
        auxiliary_weight: weight of the auxiliary loss on the third stage (Section 4); 0.4 in the
            paper, 0 for no auxiliary loss. Its logits are only computed in training.

    Raises:
        ValueError: ``bins`` is empty, or has more levels than the feature map has channels.
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
        dimension_reduction: bool = True,
        auxiliary_weight: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
        *_, before, channels = self.backbone.stage_channels
        reduced = channels // max(1, len(bins))
        if not bins or not reduced:
            raise ValueError(
                f"bins {list(bins)} must have 1 to {channels} levels, the channels of the backbone"
            )
        self.bins, self.pool = tuple(bins), POOLING[pooling]
        level_channels = reduced if dimension_reduction else channels
        self.reductions = nn.ModuleList(
            build_conv_bn_relu(channels, reduced, kernel_size=1)
            if dimension_reduction
            else nn.Identity()
            for _ in bins
        )
        self.classifier = build_classifier_head(
            channels + level_channels * len(bins), head_channels, num_classes
        )
        self.auxiliary_weight = auxiliary_weight
        if auxiliary_weight:
            self.auxiliary = build_classifier_head(before, before // 4, num_classes)

    def logits(self, images: Tensor) -> Tensor:
        return self.pyramid_logits(self.backbone(images)[-1])

    def training_logits(self, images: Tensor) -> list[tuple[float, Tensor]]:
        if not self.auxiliary_weight:
            return super().training_logits(images)
        *_, before, features = self.backbone(images)
        return [
            (1.0, self.pyramid_logits(features)),
            (self.auxiliary_weight, self.auxiliary(before)),
        ]

    def pyramid_logits(self, features: Tensor) -> Tensor:
        """Compute logits (N, num_classes, h, w) from the last feature map (N, C, h, w)."""
        levels = [
            resize_cells(reduce(self.pool(features, cells)), features)
            for cells, reduce in zip(self.bins, self.reductions, strict=True)
        ]
        return self.classifier(torch.cat([features, *levels], dim=1))
