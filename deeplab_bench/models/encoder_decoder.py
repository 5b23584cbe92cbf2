"""Encoder-decoder: resolution recovered through skip connections (DeepLabv3, Figure 2b)."""

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import conv_bn_relu, resize_like
from deeplab_bench.models.segmenter import Segmenter


class EncoderDecoder(Segmenter):
    """From the last feature map back to stride 4, adding the encoder's map at every stage.

    Lateral 1x1 convolutions bring every stage to ``head_channels``; a 3x3 convolution follows
    each sum (the plain form of U-Net, RefineNet and the FCN skips).
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
        head_channels: Count,
    ) -> None:
        super().__init__()
        self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
        stages = self.backbone.stage_channels
        self.laterals = nn.ModuleList(conv_bn_relu(c, head_channels, kernel_size=1) for c in stages)
        self.merges = nn.ModuleList(
            conv_bn_relu(head_channels, head_channels, kernel_size=3) for _ in stages
        )
        self.classifier = nn.Conv2d(head_channels, num_classes, kernel_size=1)

    def scores(self, images: Tensor) -> Tensor:
        stages = zip(self.backbone(images), self.laterals, self.merges, strict=True)
        (deepest, lateral, merge), *shallower = reversed(list(stages))
        x = merge(lateral(deepest))
        for features, lateral, merge in shallower:
            skip = lateral(features)
            x = merge(resize_like(x, skip) + skip)
        return self.classifier(x)
