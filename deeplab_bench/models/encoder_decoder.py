"""Encoder-decoder with skip connections that are added (DeepLabv3, Figure 2b)."""

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Count, OutputStride, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.layers import build_conv_bn_relu
from deeplab_bench.models.segmenter import Segmenter


class EncoderDecoder(Segmenter):
    """A decoder from the last feature map to stride 4 that adds the encoder's map of each stage.

    A lateral 1x1 convolution reduces every stage to ``head_channels``, and a 3x3 convolution
    follows each sum: a feature pyramid network (FPN; Lin et al., CVPR 2017), whose finest map
    alone is classified.
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
        self.backbone = build_backbone(backbone, output_stride=output_stride, width=width)
        stages = self.backbone.stage_channels
        self.laterals = nn.ModuleList(
            build_conv_bn_relu(c, head_channels, kernel_size=1) for c in stages
        )
        self.merges = nn.ModuleList(
            build_conv_bn_relu(head_channels, head_channels, kernel_size=3) for _ in stages
        )
        self.classifier = nn.Conv2d(head_channels, num_classes, kernel_size=1)

    def logits(self, images: Tensor) -> Tensor:
        stages = zip(self.backbone(images), self.laterals, self.merges, strict=True)
        (deepest, lateral, merge), *shallower = reversed(list(stages))
        x = merge(lateral(deepest))
        for features, lateral, merge in shallower:
            skip = lateral(features)
            x = merge(self.grid.resize_like(x, skip) + skip)
        return self.classifier(x)
