"""Base class of every architecture."""

from collections.abc import Iterator

from torch import Tensor, nn

from deeplab_bench.colours import Colours
from deeplab_bench.models.backbone import ResNet
from deeplab_bench.models.efficientnet_lite0 import EfficientNetLite0
from deeplab_bench.models.grid import Grid
from deeplab_bench.models.vgg import VGG16


class Segmenter(nn.Module):
    """A backbone and a head. An architecture defines ``backbone`` and ``logits``.

    It resizes maps with ``grid``, which knows the pixels on which their positions lie.
    """

    backbone: ResNet | VGG16 | EfficientNetLite0

    @property
    def grid(self) -> Grid:
        return self.backbone.grid

    @property
    def colours(self) -> Colours:
        """The normalisation of the images that the network gets."""
        return self.backbone.colours

    def logits(self, images: Tensor) -> Tensor:
        """Compute logits at the network's resolution, (N, 3, H, W) -> (N, num_classes, h, w).

        They cover the padded images (see ``Grid``), which the backbone pads itself.
        """
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Compute float32 logits of every pixel, (N, 3, H, W) -> (N, num_classes, H, W)."""
        return self.grid.upsample(self.logits(images), images.shape[-2:])

    def training_logits(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Compute the logits (N, num_classes, h, w) of every loss, each with the loss's weight.

        An architecture with auxiliary losses overrides this.
        """
        return [(1.0, self.logits(images))]

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters outside the backbone, which have no pretrained weights."""
        for name, parameter in self.named_parameters():
            if not name.startswith("backbone."):
                yield parameter
