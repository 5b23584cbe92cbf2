"""EfficientNet-Lite0 with atrous convolution, a small backbone that is fast on a CPU."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from deeplab_bench.colours import CENTRED
from deeplab_bench.models.backbone import (
    OutputStride,
    Positive,
    Rate,
    StridedUnit,
    check_output_stride,
    he_initialise,
)
from deeplab_bench.models.grid import Grid
from deeplab_bench.models.layers import DepthwiseConv2d

STEM_CHANNELS = 32
EPSILON = 1e-3  # of batch normalisation, as in the network of the published weights


class Unit(NamedTuple):
    """The layout of an inverted residual unit: filters, depthwise kernel, stride, expansion."""

    channels: int
    kernel_size: int
    stride: int = 1
    expansion: int = 6


UNITS = (
    Unit(16, 3, expansion=1),
    *(Unit(24, 3, stride=2), Unit(24, 3)),
    *(Unit(40, 5, stride=2), Unit(40, 5)),
    *(Unit(80, 3, stride=2), Unit(80, 3), Unit(80, 3)),
    *(Unit(112, 5), Unit(112, 5), Unit(112, 5)),
    *(Unit(192, 5, stride=2), Unit(192, 5), Unit(192, 5), Unit(192, 5)),
    Unit(320, 3),
)
LAST_OF_STRIDE = (2, 4, 10)  # the units whose output is the map of stride 4, 8 and 16
COPIED = (12, 13, 14)  # the units that a cascaded block copies


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, at any output stride.

    This is EfficientNet-B0 (Tan and Le, ICML 2019, Table 1) with ReLU6 and without squeeze and
    excitation. The convolution to 1280 channels belongs to the classifier, as in DeepLab's code for
    MobileNetV2. Parameters have the names of the published weights. Once ``output_stride`` is
    reached, a unit keeps the resolution and doubles the atrous rate of all that follow.

    The weights were trained with TensorFlow's padding ``same``. On images of k * 32 + 1 pixels it
    is a padding by half the kernel, and every position lies on the grid (see ``Grid``).

    Args:
        output_stride: as in ``ResNet``.
        width: factor on the number of channels of all units, rounded to a multiple of 8. The first
            convolution has 32 channels at any width.
        multi_grid: unit rates of the last three units with 192 channels and of every cascaded block
            (DeepLabv3, Section 3.2.1). Additional rates are ignored. ``None`` means rate 1.
        cascaded_blocks: number of copies of these three units, which have as many channels at their
            input as at their output. The unit to 320 channels follows the last copy.
        stride_in: ``first``; the published network has no other form.

    The network is the exact atrous form of the one at ``output_stride`` 32: it computes the same
    numbers at every k-th position.

    Raises:
        ValueError: an argument is outside its range above.
    """

    colours = CENTRED

    def __init__(
        self,
        *,
        output_stride: OutputStride,
        width: Positive = 1.0,
        multi_grid: Sequence[Rate] | None = None,
        cascaded_blocks: int = 0,
        stride_in: StridedUnit = "first",
    ) -> None:
        super().__init__()
        check_output_stride("efficientnet_lite0", output_stride, cascaded_blocks)
        if stride_in != "first":
            raise ValueError(f"stride_in {stride_in!r} is not possible with efficientnet_lite0")
        if multi_grid is not None and len(multi_grid) < len(COPIED):
            raise ValueError(
                f"multi_grid {list(multi_grid)} needs one unit rate for each of the "
                f"{len(COPIED)} units in a cascaded block of efficientnet_lite0"
            )

        self._conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=EPSILON)
        *before, last = UNITS
        first, *others = (UNITS[index] for index in COPIED)
        layout = [*before, *[first._replace(stride=2), *others] * cascaded_blocks, last]
        unit_rates = [1] * len(layout)
        if multi_grid is not None:
            unit_rates[COPIED[0] : -1] = list(multi_grid[: len(COPIED)]) * (1 + cascaded_blocks)
        block_ends = range(COPIED[-1], len(layout) - 2, len(COPIED))
        self.ends = {*LAST_OF_STRIDE, *block_ends, len(layout) - 1}

        self.stage_channels: list[int] = []
        self.stage_strides: list[int] = []
        units: list[nn.Module] = []
        channels, stride, rate = STEM_CHANNELS, 2, 1
        for index, (unit, unit_rate) in enumerate(zip(layout, unit_rates, strict=True)):
            step, previous_rate = unit.stride, rate
            if stride * step > output_stride:
                step, rate = 1, rate * step
            scaled = unit._replace(channels=scale_channels(unit.channels, width), stride=step)
            has_shortcut = index > 0 and unit.channels == layout[index - 1].channels
            units.append(
                InvertedResidual(channels, scaled, unit_rate * previous_rate, has_shortcut)
            )
            channels, stride = scaled.channels, stride * step
            if index in self.ends:
                self.stage_channels.append(channels)
                self.stage_strides.append(stride)
        self._blocks = nn.ModuleList([*units[: len(before)], units[-1]])
        self._copies = nn.ModuleList(units[len(before) : -1])
        self.grid = Grid(output_stride)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of stride 4, 8 and 16, of the last stage and of each cascaded block.

        (N, 3, H, W) -> (N, C, h, w) each. The last map is that of the unit to 320 channels. The
        images are padded first (see ``Grid``).
        """
        x = F.relu6(self._bn0(self._conv_stem(self.grid.pad(images))), inplace=True)
        features = []
        *before, last = self._blocks
        for index, unit in enumerate([*before, *self._copies, last]):
            x = unit(x)
            if index in self.ends:
                features.append(x)
        return features

    def find_source(self, key: str) -> str | None:
        """Return the published weights' name of what a parameter of a cascaded block copies."""
        if not key.startswith("_copies."):
            return None
        _, number, name = key.split(".", maxsplit=2)
        return f"_blocks.{COPIED[int(number) % len(COPIED)]}.{name}"


class InvertedResidual(nn.Module):
    """A 1x1 expansion, a depthwise convolution and a linear 1x1 projection, with a shortcut.

    See MobileNetV2 (Sandler et al., CVPR 2018, Section 3.3). A strided shortcut, which only
    cascaded blocks have, subsamples.
    """

    def __init__(self, in_channels: int, layout: Unit, rate: int, has_shortcut: bool) -> None:
        super().__init__()
        inner = in_channels * layout.expansion
        self.expands = layout.expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(in_channels, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=EPSILON)
        self._depthwise_conv = DepthwiseConv2d(inner, layout.kernel_size, layout.stride, rate)
        self._bn1 = nn.BatchNorm2d(inner, eps=EPSILON)
        self._project_conv = nn.Conv2d(inner, layout.channels, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(layout.channels, eps=EPSILON)
        self.has_shortcut, self.stride = has_shortcut, layout.stride

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)), inplace=True)
        output = self._bn2(self._project_conv(inner))
        if not self.has_shortcut:
            return output
        return output + (x if self.stride == 1 else F.max_pool2d(x, 1, stride=self.stride))


def scale_channels(channels: int, width: float) -> int:
    """Multiply by ``width`` and round to a multiple of 8, at least 8, as EfficientNet does."""
    scaled = max(8, int(channels * width + 4) // 8 * 8)
    return scaled if scaled >= 0.9 * channels * width else scaled + 8
