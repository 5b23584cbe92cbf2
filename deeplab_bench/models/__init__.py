"""Architectures, one in each file: ``fcn.py`` defines the architecture ``fcn``.

An architecture is a ``Segmenter``: it maps normalised images (N, 3, H, W) to logits
(N, num_classes, H, W). Its keyword-only constructor is also its schema: ``params.yaml`` uses the
names of the arguments. ``registry`` lists the architectures. This package does not import them
all, so that a change of one architecture does not make the results of the others stale.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.plugins import find_only_class


def get_module_name(architecture: str) -> str:
    """Return the name of the module that defines the architecture."""
    return f"{__name__}.{architecture}"


def find_network_class(architecture: str) -> type[Segmenter]:
    """Return the only ``Segmenter`` that the architecture's file defines."""
    return find_only_class(get_module_name(architecture), Segmenter)


def list_arguments(architecture: str) -> dict[str, inspect.Parameter]:
    """List the arguments that ``params.yaml`` may set, all except the number of classes."""
    parameters = dict(inspect.signature(find_network_class(architecture)).parameters)
    del parameters["num_classes"]
    return parameters


def build_model(architecture: str, arguments: Mapping[str, Any], *, num_classes: int) -> Segmenter:
    """Build an architecture with random weights.

    Raises:
        ValueError: the architecture does not allow these arguments.
    """
    return find_network_class(architecture)(num_classes=num_classes, **arguments)


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Raise the same ``ValueError`` as ``build_model``, without allocating weights."""
    with torch.device("meta"):
        build_model(architecture, arguments, num_classes=1)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
