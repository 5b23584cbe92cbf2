"""ResNet made atrous: the backbone of every architecture (DeepLabv3, Section 3).

``vgg`` has the other one, of FCN and of the first DeepLabs.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

DEPTHS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}
STAGE_PLANES = (64, 128, 256, 512)
# torch 2.15 corrupts memory in the strided 1x1 convolution of 8 or 12 channels, channels last, on
# a CPU (its oneDNN).
LEAST_CHANNELS = 16

# What an architecture's constructor may be given; the settings are checked against these.
BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "vgg16"]
OutputStride = Literal[8, 16, 32, 64, 128, 256]
Positive = Annotated[float, Gt(0)]
Rate = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(1)]


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier, at any output stride.

    Parameters carry torchvision's names, so that its weights load. A stage that would step beyond
    ``output_stride`` keeps its resolution and doubles the atrous rate instead. The stride is in a
    stage's first unit, as in torchvision; the paper has it in the last one.

    Args:
        name: one of ``DEPTHS``.
        output_stride: input resolution over that of the last feature map, a power of two from 8
            to 32, doubled for every cascaded block.
        width: factor on the number of channels of every layer, a quarter or more.
        multi_grid: unit rates of the last stage and of every cascaded block, one for each of their
            residual units (further ones are ignored: ResNet-18 has two units where the paper's
            networks have three). ``None`` leaves them at 1 and, as torchvision does, lets the
            convolution that lost its stride keep the rate of the stage before; that is the exact
            atrous form of the classification network.
        cascaded_blocks: replicas of the last stage appended to it: 3 for the paper's block5-7.

    Raises:
        ValueError: an argument is outside what is said above.
    """

    def __init__(
        self,
        name: BackboneName,
        *,
        output_stride: OutputStride,
        width: Positive = 1.0,
        multi_grid: Sequence[Rate] | None = None,
        cascaded_blocks: int = 0,
    ) -> None:
        super().__init__()
        if name not in DEPTHS:
            raise ValueError(f"backbone {name!r} is not one of {', '.join(DEPTHS)}")
        strides = get_args(OutputStride)
        if output_stride not in strides:
            raise ValueError(
                f"output_stride {output_stride} is not one of {', '.join(map(str, strides))}"
            )
        if output_stride > 32 * 2**cascaded_blocks:
            raise ValueError(
                f"output_stride {output_stride} is beyond {32 * 2**cascaded_blocks}, which is "
                f"what {name} reaches with {cascaded_blocks} cascaded blocks"
            )
        unit, depths = DEPTHS[name]
        if multi_grid is not None and len(multi_grid) < depths[-1]:
            raise ValueError(
                f"multi_grid {list(multi_grid)} needs a unit rate for each of the "
                f"{depths[-1]} residual units of {name}'s last stage"
            )

        channels = round(STAGE_PLANES[0] * width)
        if channels < LEAST_CHANNELS:
            raise ValueError(
                f"width {width} leaves {channels} channels in the stem, {LEAST_CHANNELS} are least"
            )
        self.conv1 = nn.Conv2d(3, channels, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        self.stages: list[str] = []
        self.stage_channels: list[int] = []
        self.stage_strides: list[int] = []
        stride, rate = 4, 1
        for index in range(len(depths) + cascaded_blocks):
            depth = depths[min(index, len(depths) - 1)]
            planes = round(STAGE_PLANES[min(index, len(depths) - 1)] * width)
            step, previous_rate = (1 if index == 0 else 2), rate
            if stride * step > output_stride:
                step, rate = 1, rate * step
            stage = residual_stage(unit, channels, planes, depth=depth, stride=step)
            if multi_grid is not None and index >= len(depths) - 1:
                set_atrous_rates(stage, [rate * unit_rate for unit_rate in multi_grid[:depth]])
            else:
                set_atrous_rates(stage, [rate] * depth, entry_rate=previous_rate)

            stride, channels = stride * step, planes * unit.expansion
            self.stages.append(f"layer{index + 1}")
            self.stage_channels.append(channels)
            self.stage_strides.append(stride)
            self.add_module(self.stages[-1], stage)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the feature map of every stage, from stride 4 to ``output_stride``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        features = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            features.append(x)
        return features


def residual_stage(
    unit: type[BasicBlock | Bottleneck], in_channels: int, planes: int, *, depth: int, stride: int
) -> nn.Sequential:
    """``depth`` residual units, the first of which takes the stride (torchvision's placement).

    Where the channels stay as they are, as in cascaded blocks, a strided shortcut only subsamples:
    the parameters are the same at every output stride (so in the authors' code).
    """
    out_channels = planes * unit.expansion
    shortcut: nn.Module | None = None
    if in_channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    elif stride != 1:
        shortcut = nn.MaxPool2d(kernel_size=1, stride=stride)
    entry = unit(in_channels, planes, stride=stride, downsample=shortcut)
    return nn.Sequential(entry, *(unit(out_channels, planes) for _ in range(depth - 1)))


def set_atrous_rates(
    stage: nn.Sequential, unit_rates: Sequence[int], entry_rate: int | None = None
) -> None:
    """Give the 3x3 convolutions of each unit its rate, and the stage's first one ``entry_rate``."""
    for unit, rate in zip(stage, unit_rates, strict=True):
        for conv in spatial_convolutions(unit):
            conv.dilation = conv.padding = (rate, rate)
    if entry_rate is not None:
        entry = spatial_convolutions(stage)[0]
        entry.dilation = entry.padding = (entry_rate, entry_rate)


def spatial_convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]


def he_initialise(module: nn.Module) -> None:
    """He initialisation of convolutions (fan out), as torchvision's ResNet and VGG."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)
