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
from deeplab_bench.models.vgg import VGG16


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


def start_as_identities(
    backbone: ResNet | EfficientNetLite0 | VGG16, *, copies_alone: bool = False
) -> None:
    """Set the last batch normalisation of residual units to zero (Goyal et al., 2017, 5.1).

    A unit then passes its shortcut on, until training changes it. Random units in a row multiply
    the features' scale, and with it the first loss. Cascaded blocks do so as well if they copy
    pretrained weights, which were trained for another place in the network. With ``copies_alone``,
    only these blocks begin as identities.
    """
    for name, unit in backbone.named_modules():
        if isinstance(unit, Bottleneck):
            last = "bn3.weight"
        elif isinstance(unit, BasicBlock):
            last = "bn2.weight"
        elif isinstance(unit, InvertedResidual) and unit.has_shortcut:
            last = "_bn2.weight"
        else:
            continue
        if not copies_alone or backbone.find_source(f"{name}.{last}"):
            nn.init.zeros_(unit.get_parameter(last))
