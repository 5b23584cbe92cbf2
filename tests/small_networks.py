"""Small models for tests, with batch statistics like those of a trained network."""

from typing import Any, cast

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
    """Build a small model in evaluation mode, with random batch statistics."""
    known = list_arguments(architecture)
    arguments = {key: value for key, value in SETTINGS.items() if key in known} | overrides
    torch.manual_seed(seed)
    model = build_model(architecture, arguments, num_classes=NUM_CLASSES)
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


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy every weight to the one at its place, under whichever name (shapes must agree)."""
    values = source.state_dict().values()
    target.load_state_dict(dict(zip(target.state_dict(), values, strict=True)))


def build_on_meta(architecture: str, **arguments: Any) -> Any:
    """Build a model without memory for its weights, for 21 classes."""
    with torch.device("meta"):
        return build_model(architecture, arguments, num_classes=21)
