"""A classification network, from whose weights the architectures can start."""

from torch import Tensor, nn

from deeplab_bench.models.backbone import BackboneName, Positive
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.segmenter import Segmenter


class Classifier(Segmenter):
    """A backbone, the mean of its last feature map, and a linear layer.

    It is a ``Segmenter`` whose map has one position, so that the training loop trains it. The
    label of an image is a map, too, with the image's class at every pixel.
    """

    def __init__(self, *, num_classes: int, backbone: BackboneName, width: Positive) -> None:
        super().__init__()
        self.backbone = build_backbone(backbone, output_stride=32, width=width)
        self.fc = nn.Linear(self.backbone.stage_channels[-1], num_classes)

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of images, (N, 3, H, W) -> (N, num_classes, 1, 1)."""
        return self.fc(self.backbone(images)[-1].mean(dim=(2, 3)))[:, :, None, None]

    def classification_state(self) -> dict[str, Tensor]:
        """Return the state dict; a ResNet has torchvision's names."""
        return self.backbone.state_dict() | self.fc.state_dict(prefix="fc.")
