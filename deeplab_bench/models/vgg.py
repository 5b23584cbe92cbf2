"""Fully convolutional VGG-16 with atrous convolution, for FCN and DeepLabv1 and v2."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from deeplab_bench.colours import IMAGENET
from deeplab_bench.models.backbone import OutputStride, Positive, he_initialise
from deeplab_bench.models.grid import Grid

# Number of convolutions before each pool, and of their filters.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
MIN_CHANNELS = 8


class VGG16(nn.Module):
    """torchvision's VGG-16 with fc6 and fc7 as convolutions (DeepLabv1, Section 3.1 and 3.2).

    The convolutions have torchvision's names, so its weights can be loaded. At ``output_stride`` 32
    the network is the classification network. At 8 and 16 it has DeepLab's 3x3 pools, and once
    ``output_stride`` is reached, a pool keeps the resolution and doubles the atrous rate instead.
    The pools of the released Caffe models round map sizes up; images padded to k * 8 + 1 pixels
    leave nothing to round.

    Args:
        output_stride: 8, 16 or 32. DeepLab uses 8, with rate 2 in conv5.
        kernel_size: kernel size of fc6; 7 in the classification network.
        rates: atrous rates of fc6. There is one fc6 and one fc7 for each rate.
        channels: filters of fc6 and of fc7.
        width: factor on the number of channels of all other layers, at least 0.125.
        batch_norm: batch normalisation instead of a bias after every convolution, for training from
            scratch. The published networks have none.
        average_pool5: follow pool5 by an average pool, 3x3 with stride 1. The authors' released
            LargeFOV has it under the name pool5a; the papers do not mention it. As in Caffe, zeros
            beyond the border count.

    Raises:
        ValueError: an argument is outside its range above.
    """

    colours = IMAGENET

    def __init__(
        self,
        *,
        output_stride: OutputStride,
        kernel_size: int,
        rates: Sequence[int],
        channels: int,
        width: Positive = 1.0,
        batch_norm: bool = False,
        average_pool5: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride {output_stride} of vgg16 is not one of 8, 16, 32")
        if round(STAGES[0][1] * width) < MIN_CHANNELS:
            raise ValueError(
                f"width {width} gives {round(STAGES[0][1] * width)} channels in conv1: at least "
                f"{MIN_CHANNELS} are needed"
            )
        layers: list[nn.Module] = []
        last, stride, rate = 3, 1, 1
        self.stage_channels: list[int] = []
        self.stage_strides: list[int] = []
        for depth, filters in STAGES:
            planes = round(filters * width)
            for _ in range(depth):
                conv = nn.Conv2d(last, planes, 3, padding=rate, dilation=rate, bias=not batch_norm)
                layers.append(conv)
                if batch_norm:
                    layers.append(nn.BatchNorm2d(planes))
                layers.append(nn.ReLU(inplace=True))
                last = planes
            step = 2 if 2 * stride <= output_stride else 1
            stride, rate = stride * step, rate * 2 // step
            if output_stride == 32:
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
            else:
                layers.append(nn.MaxPool2d(kernel_size=3, stride=step, padding=1))
            self.stage_channels.append(planes)
            self.stage_strides.append(stride)
        if average_pool5:
            layers.append(nn.AvgPool2d(kernel_size=3, stride=1, padding=1))
        self.features = nn.Sequential(*layers)
        self.fully_connected = nn.ModuleList(
            build_fc6_fc7(last, channels, kernel_size, r, batch_norm) for r in rates
        )
        self.stage_channels[-1:] = [channels] * len(rates)
        self.stage_strides[-1:] = [stride] * len(rates)
        self.grid = Grid(output_stride, from_first_pixel=output_stride < 32)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Compute the maps of pool1 to pool4, then the map of fc7 for every rate.

        (N, 3, H, W) -> (N, C, h, w) each. The images are padded first (see ``Grid``).
        """
        x, pools = self.grid.pad(images), []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        return [*pools[:-1], *(layers(x) for layers in self.fully_connected)]

    def find_source(self, key: str) -> None:
        """Return None: VGG-16 has no cascaded blocks, whose parameters would be copies."""


def build_fc6_fc7(
    in_channels: int, channels: int, kernel_size: int, rate: int, batch_norm: bool
) -> nn.Sequential:
    """Make fc6 and fc7 as convolutions that keep the resolution, each with ReLU and dropout."""
    bias = not batch_norm
    fc6 = nn.Conv2d(in_channels, channels, kernel_size, padding="same", dilation=rate, bias=bias)
    fc7 = nn.Conv2d(channels, channels, kernel_size=1, bias=bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, conv in {"6": fc6, "7": fc7}.items():
        layers["fc" + name] = conv
        if batch_norm:
            layers["bn" + name] = nn.BatchNorm2d(channels)
        layers["relu" + name] = nn.ReLU(inplace=True)
        layers["drop" + name] = nn.Dropout(0.5)
    return nn.Sequential(layers)
