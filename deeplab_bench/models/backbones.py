"""Choice of a backbone by its name, and the start of residual units."""

from collections.abc import Sequence

from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from deeplab_bench.models.backbone import (
    DEPTHS,
    BackboneName,
    OutputStride,
    Positive,
    Rate,
    ResNet,
    StridedUnit,
)
from deeplab_bench.models.efficientnet_lite0 import EfficientNetLite0, InvertedResidual


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


def start_as_identities(module: nn.Module) -> None:
    """Set the last batch normalisation of each residual unit to zero (Goyal et al., 2017, 5.1).

    A unit then passes its shortcut on, until training or pretrained weights change it. Random units
    in a row multiply the features' scale, and with it the first loss.
    """
    for unit in module.modules():
        if isinstance(unit, Bottleneck):
            nn.init.zeros_(unit.bn3.weight)
        elif isinstance(unit, BasicBlock):
            nn.init.zeros_(unit.bn2.weight)
        elif isinstance(unit, InvertedResidual) and unit.has_shortcut:
            nn.init.zeros_(unit.get_parameter("_bn2.weight"))
