"""ResNet with atrous convolution, a backbone for every architecture (DeepLabv3, Section 3).

So is EfficientNet-Lite0, in ``efficientnet_lite0``. VGG-16, for FCN and DeepLabv1 and v2, is in
``vgg``.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from deeplab_bench.colours import IMAGENET
from deeplab_bench.models.grid import Grid

DEPTHS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
STAGE_PLANES = (64, 128, 256, 512)
# On a CPU, oneDNN in torch 2.15 corrupts memory in a strided 1x1 convolution of 8 or 12 channels in
# the memory format channels last.
MIN_CHANNELS = 16

# The types of constructor arguments; the settings are validated against them.
BackboneName = Literal[
    "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "efficientnet_lite0"
]
OutputStride = Literal[8, 16, 32, 64, 128, 256]
StridedUnit = Literal["first", "last"]
Positive = Annotated[float, Gt(0)]
Rate = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(1)]
Share = Annotated[float, Ge(0), Lt(1)]


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier, at any output stride (DeepLabv3, Section 3).

    Parameters have torchvision's names, so its weights can be loaded. Once ``output_stride`` is
    reached, a stage keeps the resolution and doubles the atrous rate instead.

    Args:
        name: a key of ``DEPTHS``.
        output_stride: ratio of the input resolution to the resolution of the last feature map: 8,
            16 or 32, and up to 32 * 2**n with n cascaded blocks.
        width: factor on the number of channels of every layer, at least 0.25.
        multi_grid: unit rates of the last stage and of every cascaded block, one for each residual
            unit (Section 3.2.1). Additional rates are ignored: ResNet-18 has two units, the paper's
            networks have three. ``None`` means rate 1 for all units.
        cascaded_blocks: number of copies of the last stage after it; 3 gives the paper's block5 to
            block7 (Section 3.2).
        stride_in: the residual unit of a stage that has the stride, in its first 3x3 convolution.
            ``first`` as in torchvision, whose ImageNet weights are trained so; ``last`` as in the
            paper (Section 3.2) and its authors' code, where every block but the last one has a
            stride, and block1 ends at stride 8.

    The network is the exact atrous form of the one at ``output_stride`` 32: it computes the same
    numbers at every k-th position. The 3x3 convolution whose stride is removed then keeps the rate
    before it. The exception is ``first`` with ``multi_grid``: the first 3x3 convolution of block4
    and of each cascaded block then has the rate of its unit, (1, 1, 1) included.

    Raises:
        ValueError: an argument is outside its range above.
    """

    colours = IMAGENET

    def __init__(
        self,
        name: BackboneName,
        *,
        output_stride: OutputStride,
        width: Positive = 1.0,
        multi_grid: Sequence[Rate] | None = None,
        cascaded_blocks: int = 0,
        stride_in: StridedUnit = "first",
    ) -> None:
        super().__init__()
        check_output_stride(name, output_stride, cascaded_blocks)
        unit, depths = DEPTHS[name]
        if multi_grid is not None and len(multi_grid) < depths[-1]:
            raise ValueError(
                f"multi_grid {list(multi_grid)} needs one unit rate for each of the "
                f"{depths[-1]} residual units in the last stage of {name}"
            )

        channels = round(STAGE_PLANES[0] * width)
        if channels < MIN_CHANNELS:
            raise ValueError(
                f"width {width} gives {channels} channels in conv1: at least {MIN_CHANNELS} are "
                "needed"
            )
        self.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        self.stages: list[str] = []
        self.stage_channels: list[int] = []
        self.stage_strides: list[int] = []
        stride, rate = 4, 1
        count = len(depths) + cascaded_blocks
        without_stride = 0 if stride_in == "first" else count - 1
        for index in range(count):
            depth = depths[min(index, len(depths) - 1)]
            planes = round(STAGE_PLANES[min(index, len(depths) - 1)] * width)
            step, previous_rate = (1 if index == without_stride else 2), rate
            if stride * step > output_stride:
                step, rate = 1, rate * step
            stage = build_residual_stage(
                unit, channels, planes, depth=depth, stride=step, stride_in=stride_in
            )
            unit_rates = [1] * depth
            if multi_grid is not None and index >= len(depths) - 1:
                unit_rates = list(multi_grid[:depth])
                if stride_in == "first":
                    previous_rate = rate
            set_atrous_rates(stage, unit_rates, previous_rate, rate, stride_in)

            stride, channels = stride * step, planes * unit.expansion
            self.stages.append(f"layer{index + 1}")
            self.stage_channels.append(channels)
            self.stage_strides.append(stride)
            self.add_module(self.stages[-1], stage)
        self.grid = Grid(output_stride)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the feature maps of all stages, from stride 4 to ``output_stride``.

        (N, 3, H, W) -> (N, C, h, w) each. The images are padded first (see ``Grid``).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(self.grid.pad(images)))))
        features = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features

    def find_source(self, key: str) -> str | None:
        """Return torchvision's name of what a parameter of a cascaded block copies.

        The first unit of a block copies the last stage's second unit, since the stage's first unit
        has fewer input channels.
        """
        block, *inner = key.split(".", maxsplit=2)
        if block not in self.stages[4:]:
            return None
        unit, name = inner
        return f"layer4.{max(1, int(unit))}.{name}"


def check_output_stride(name: str, output_stride: int, cascaded_blocks: int) -> None:
    """Raise ``ValueError`` unless a backbone can have this output stride."""
    strides = get_args(OutputStride)
    if output_stride not in strides:
        raise ValueError(
            f"output_stride {output_stride} is not one of {', '.join(map(str, strides))}"
        )
    if output_stride > 32 * 2**cascaded_blocks:
        raise ValueError(
            f"output_stride {output_stride} is above {32 * 2**cascaded_blocks}, the largest "
            f"of {name} with {cascaded_blocks} cascaded blocks"
        )


def build_residual_stage(
    unit: type[BasicBlock | Bottleneck],
    in_channels: int,
    planes: int,
    *,
    depth: int,
    stride: int,
    stride_in: StridedUnit = "first",
) -> nn.Sequential:
    """Stack ``depth`` residual units; the first or the last one has the stride."""
    out_channels = planes * unit.expansion
    units, channels, strided = [], in_channels, find_strided_unit(depth, stride_in)
    for index in range(depth):
        step = stride if index == strided else 1
        shortcut = build_shortcut(channels, out_channels, step)
        units.append(unit(channels, planes, stride=step, downsample=shortcut))
        channels = out_channels
    return nn.Sequential(*units)


def build_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Build the shortcut of a residual unit; None if it is the identity.

    If the number of channels does not change, a strided shortcut only subsamples. So the parameters
    are the same at every output stride, as in the authors' code.
    """
    if in_channels != out_channels:
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    return None if stride == 1 else nn.MaxPool2d(kernel_size=1, stride=stride)


def find_strided_unit(depth: int, stride_in: StridedUnit) -> int:
    return 0 if stride_in == "first" else depth - 1


def set_atrous_rates(
    stage: nn.Sequential,
    unit_rates: Sequence[int],
    before: int,
    after: int,
    stride_in: StridedUnit,
) -> None:
    """Set the rates of the 3x3 convolutions of a stage.

    They are ``before`` up to the convolution that has the stride, or had it, and ``after`` from the
    next one on, times the rate of the unit.
    """
    strided = find_strided_unit(len(stage), stride_in)
    for index, (unit, unit_rate) in enumerate(zip(stage, unit_rates, strict=True)):
        entry, *others = list_3x3_convolutions(unit)
        set_rate(entry, unit_rate * (before if index <= strided else after))
        for conv in others:
            set_rate(conv, unit_rate * (before if index < strided else after))


def set_rate(conv: nn.Conv2d, rate: int) -> None:
    conv.dilation = conv.padding = (rate, rate)


def list_3x3_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def he_initialise(module: nn.Module) -> None:
    """Initialise convolutions as torchvision does (He et al., ICCV 2015, with fan-out).

    The fan-out of a depthwise convolution is the size of its kernel, which is its fan-in, too.
    """
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            mode: Literal["fan_in", "fan_out"] = "fan_out" if m.groups == 1 else "fan_in"
            nn.init.kaiming_normal_(m.weight, mode=mode, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
