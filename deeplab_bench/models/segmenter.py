"""What every architecture is: a network over a backbone that scores the classes on a map."""

from collections.abc import Iterator

from torch import Tensor, nn

from deeplab_bench.models.backbone import ResNet
from deeplab_bench.models.layers import upsample_logits
from deeplab_bench.models.vgg import VGG16


class Segmenter(nn.Module):
    """An architecture gives ``backbone`` and ``scores``; the rest follows from them."""

    backbone: ResNet | VGG16

    def scores(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, num_classes, h, w), at the network's own resolution."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> float32 logits (N, num_classes, H, W)"""
        return upsample_logits(self.scores(images), images)

    def training_scores(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """What training supervises: weights of the losses, and the ``scores`` of each."""
        return [(1.0, self.scores(images))]

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Those that no pretrained network initialises: all outside of the backbone."""
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone."):
                yield parameter
