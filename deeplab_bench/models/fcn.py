"""Fully convolutional network: the baseline without context (Long et al., CVPR 2015)."""

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, OutputStride, Positive, ResNet
from deeplab_bench.models.layers import conv_bn_relu, upsample_logits


class FCN(nn.Module):
    """Classify the last feature map and upsample: FCN-32s where ``output_stride`` is 32.

    The head is torchvision's ``FCNHead`` without its dropout.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        backbone: BackboneName,
        width: Positive,
        output_stride: OutputStride,
    ):
        super().__init__()
        self.backbone = ResNet(backbone, output_stride=output_stride, width=width)
        channels = self.backbone.stage_channels[-1]
        self.classifier = nn.Sequential(
            conv_bn_relu(channels, channels // 4, kernel_size=3),
            nn.Conv2d(channels // 4, num_classes, kernel_size=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, num_classes, H, W)"""
        return upsample_logits(self.classifier(self.backbone(images)[-1]), images)
