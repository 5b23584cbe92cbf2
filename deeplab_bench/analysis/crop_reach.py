"""Atrous rates beyond the maps of the training crops.

A crop gives smaller maps than a whole image. Outer weights of a high atrous rate lie on padding at
most positions of a crop, so that training says little about them, and on pixels of an image, where
they count. This is why DeepLabv3 needs large crops (Section 4.1, "Crop size"; Table 8).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deeplab_bench.models import build_model
from deeplab_bench.settings.experiment import Experiment, Phase

# A weight is little trained if it lies on pixels at less than this share of the positions in a
# crop, but not in an image, where the share is more than so many times as large.
LITTLE = 0.2
TIMES = 1.5


class AtrousCall(NamedTuple):
    """A call of an atrous convolution: its rate, kernel (k, k) and map (h, w)."""

    rate: int
    kernel: tuple[int, ...]
    size: tuple[int, ...]
    weights: int

    def compute_shares(self) -> NDArray[np.float64]:
        """Compute the share of positions at which each weight (k, k) lies on the map."""
        rows, columns = (
            np.clip(1 - self.rate * np.abs(np.arange(taps) - (taps - 1) / 2) / side, 0, None)
            for taps, side in zip(self.kernel, self.size, strict=True)
        )
        return np.outer(rows, columns)


class CropReach(NamedTuple):
    """The share of atrous weights that are little trained, and the highest rate of such weights.

    ``in_crop`` and ``in_image`` are the maps (h, w) on which the convolution of this rate works.
    """

    little_trained: float
    rate: int
    in_crop: tuple[int, ...]
    in_image: tuple[int, ...]


def measure_crop_reach(experiment: Experiment, image_size: Sequence[int]) -> CropReach | None:
    """Compare the maps of training crops with those of an image of (height, width) pixels.

    Returns:
        None if no weight is little trained.
    """
    phase = experiment.phases[-1]
    calls = [
        list_atrous_calls(experiment.architecture, phase, size)
        for size in (phase.training.crop_size, image_size)
    ]
    found, weights = [], 0.0
    for crop, image in zip(*calls, strict=True):
        in_crop, in_image = crop.compute_shares(), image.compute_shares()
        is_little = (in_crop < LITTLE) & (in_image >= LITTLE) & (in_image > TIMES * in_crop)
        if is_little.any():
            found.append((crop.rate, crop.size, image.size))
            weights += is_little.mean() * crop.weights
    if not found:
        return None
    return CropReach(weights / sum(call.weights for call in calls[0]), *max(found))


def list_atrous_calls(architecture: str, phase: Phase, size: Sequence[int]) -> list[AtrousCall]:
    """List the calls of atrous convolutions on an image of (height, width) pixels, in order."""
    calls: list[AtrousCall] = []

    def note(module: nn.Conv2d, inputs: tuple[Tensor]) -> None:
        size = tuple(inputs[0].shape[-2:])
        rate, weights = module.dilation[0], module.weight.numel()
        calls.append(AtrousCall(rate, module.kernel_size, size, weights))

    with torch.device("meta"):
        network = build_model(architecture, phase.arguments, num_classes=2).eval()
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.dilation[0] > 1:
                module.register_forward_pre_hook(note)
        with torch.no_grad():
            network(torch.empty(1, 3, *size))
    return calls
