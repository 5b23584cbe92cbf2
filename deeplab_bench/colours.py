"""Normalisation of the colours that a network gets."""

from dataclasses import dataclass

import torch
from torch import Tensor

RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Colours:
    """The mean and the deviation by which colours of 0 to 1 are normalised, one for each channel.

    Pretrained weights expect those of their own training.
    """

    mean: RGB
    std: RGB

    def normalise(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation: uint8 (N, 3, H, W) to float32.

        The result is channels last in memory.
        """
        # Made on the device: a copy from the CPU would make the program wait for the GPU.
        mean, std = (
            torch.stack([torch.full((1, 1), 255 * value, device=images.device) for value in values])
            for values in (self.mean, self.std)
        )
        scaled = (images.float() - mean) / std
        return scaled.contiguous(memory_format=torch.channels_last)


# The mean and the deviation of ImageNet's images, for the weights of torchvision.
IMAGENET = Colours(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# From -1 to 1, for the weights of EfficientNet-Lite, which come from TensorFlow.
CENTRED = Colours(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
