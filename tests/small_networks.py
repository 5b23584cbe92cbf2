"""Small models for tests, with batch statistics like those of a trained network."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deeplab_bench.models import build_model, list_arguments

NUM_CLASSES = 5
# What every architecture needs; each takes those it knows.
SETTINGS: dict[str, Any] = {
    "backbone": "resnet18",
    "width": 0.25,
    "output_stride": 16,
    "head_channels": 8,
    "atrous_rates": (1, 2, 3),
}


def small_model(architecture: str, *, seed: int = 0, **overrides: Any) -> Any:
    """Build a small model in evaluation mode; batch statistics and all weights are random."""
    known = list_arguments(architecture)
    arguments = {key: value for key, value in SETTINGS.items() if key in known} | overrides
    torch.manual_seed(seed)
    model = build_model(architecture, arguments, num_classes=NUM_CLASSES)
    for m in model.modules():
        if isinstance(m, nn.Conv2d) and not m.weight.any():
            nn.init.normal_(m.weight, std=0.01)
    return randomise_batch_norm(model).eval()


def randomise_batch_norm(model: nn.Module) -> nn.Module:
    """Make every statistic matter, as in a trained network."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for tensor in (m.weight, m.running_var):
                nn.init.uniform_(cast(Tensor, tensor), 0.5, 1.0)
            for tensor in (m.bias, m.running_mean):
                nn.init.uniform_(cast(Tensor, tensor), -0.5, 0.5)
    return model


def random_images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def interpolate_by_hand(x: Tensor, step: float, size: Sequence[int], first: float = 0) -> Tensor:
    """Interpolate between the positions of (N, C, h, w) at first, first + step, ... of both axes.

    Beyond the first and the last position, their values go on.
    """
    values = x.detach().double().numpy()
    for axis, count in zip((2, 3), size, strict=True):
        wanted, last = first + step * np.arange(count), values.shape[axis] - 1
        at = np.minimum(np.maximum(wanted, 0), last)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if axis == d else 1 for d in range(4)])
        upper = values.take(np.minimum(low + 1, last), axis)
        values = (1 - share) * values.take(low, axis) + share * upper
    return torch.from_numpy(values).to(x.dtype)


def count_positions(size: Sequence[int], output_stride: int, stride: int) -> tuple[int, ...]:
    """Count the positions at pixels 0, stride, ... up to the end of padded images."""
    return tuple(
        math.ceil((side - 1) / output_stride) * output_stride // stride + 1 for side in size
    )


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight to the one at its place, under whichever name (shapes must agree)."""
    values = source.state_dict().values()
    target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))


def build_on_meta(architecture: str, **arguments: Any) -> Any:
    """Build a model without memory for its weights, for 21 classes."""
    with torch.device("meta"):
        return build_model(architecture, arguments, num_classes=21)
