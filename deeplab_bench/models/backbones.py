"""Choice of a backbone by its name."""

from collections.abc import Sequence

from deeplab_bench.models.backbone import (
    DEPTHS,
    BackboneName,
    OutputStride,
    Positive,
    Rate,
    ResNet,
    StridedUnit,
)
from deeplab_bench.models.efficientnet_lite0 import EfficientNetLite0


def build_backbone(
    name: BackboneName,
    *,
    output_stride: OutputStride,
    width: Positive = 1.0,
    multi_grid: Sequence[Rate] | None = None,
    cascaded_blocks: int = 0,
    stride_in: StridedUnit = "first",
) -> ResNet | EfficientNetLite0:
    """Build a backbone that every architecture can have: all but VGG-16.

    Raises:
        ValueError: the name is another one, or the backbone does not allow the arguments.
    """
    if name == "efficientnet_lite0":
        return EfficientNetLite0(
            output_stride=output_stride,
            width=width,
            multi_grid=multi_grid,
            cascaded_blocks=cascaded_blocks,
            stride_in=stride_in,
        )
    if name not in DEPTHS:
        names = [*DEPTHS, "efficientnet_lite0"]
        raise ValueError(f"backbone {name!r} is not one of {', '.join(names)}")
    return ResNet(
        name,
        output_stride=output_stride,
        width=width,
        multi_grid=multi_grid,
        cascaded_blocks=cascaded_blocks,
        stride_in=stride_in,
    )
