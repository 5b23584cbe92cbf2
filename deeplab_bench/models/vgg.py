"""VGG-16 made fully convolutional and atrous: the backbone of FCN and of DeepLabv1 and v2."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from deeplab_bench.models.backbone import OutputStride, Positive, he_initialise

# Convolutions before each pool, and their filters.
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
LEAST_CHANNELS = 8


class VGG16(nn.Module):
    """torchvision's VGG-16 with fc6 and fc7 as convolutions, at any output stride.

    The convolutions carry torchvision's names, so that its weights load. At ``output_stride`` 32
    it is the classification network. Below, the pools are DeepLab's, 3x3, and one that would step
    beyond ``output_stride`` keeps its resolution and doubles the atrous rate instead. The released
    Caffe pools round sizes up, these as ``ResNet`` does; for the papers' 32k - 31 pixels they
    agree.

    Args:
        output_stride: 8, 16 or 32; DeepLab's is 8, with rate 2 in conv5.
        kernel_size: of fc6, 7 in the classification network.
        rates: of fc6, which with fc7 is repeated for each.
        channels: filters of fc6 and of fc7.
        width: factor on the number of channels of every other layer.
        batch_norm: in place of every convolution's bias, for training from scratch; the published
            networks have none.

    Raises:
        ValueError: an argument is outside what is said above.
    """

    def __init__(
        self,
        *,
        output_stride: OutputStride,
        kernel_size: int,
        rates: Sequence[int],
        channels: int,
        width: Positive = 1.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride {output_stride} of vgg16 is not one of 8, 16, 32")
        if round(STAGES[0][1] * width) < LEAST_CHANNELS:
            raise ValueError(
                f"width {width} leaves {round(STAGES[0][1] * width)} channels in conv1, "
                f"{LEAST_CHANNELS} are least"
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
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True))
            else:
                layers.append(nn.MaxPool2d(kernel_size=3, stride=step, padding=1))
            self.stage_channels.append(planes)
            self.stage_strides.append(stride)
        self.features = nn.Sequential(*layers)
        self.fully_connected = nn.ModuleList(
            fc6_fc7(last, channels, kernel_size, r, batch_norm) for r in rates
        )
        self.stage_channels[-1:] = [channels] * len(rates)
        self.stage_strides[-1:] = [stride] * len(rates)
        he_initialise(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the maps of pool1 to pool4, then that of fc7 for every rate."""
        x, pools = images, []
        for layer in self.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(x)
        return [*pools[:-1], *(layers(x) for layers in self.fully_connected)]


def fc6_fc7(
    in_channels: int, channels: int, kernel_size: int, rate: int, batch_norm: bool
) -> nn.Sequential:
    """(N, in_channels, h, w) -> (N, channels, h, w): convolutions that keep the resolution."""
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
