"""The architectures, a file each: ``fcn.py`` defines the architecture ``fcn``.

An architecture is a ``Segmenter`` whose keyword-only constructor is its schema: the names that
``params.yaml`` may give are the names of its arguments. It maps images (N, 3, H, W), normalised,
to logits (N, num_classes, H, W). ``registry`` lists them. Nothing here imports them all: what one
of them is made of does not change with the others.
"""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from deeplab_bench.models.segmenter import Segmenter


def module_of(architecture: str) -> str:
    return f"{__name__}.{architecture}"


def network_class(architecture: str) -> type[Segmenter]:
    """The one ``Segmenter`` that the architecture's file defines."""
    module = import_module(module_of(architecture))
    (network,) = (
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Segmenter) and member.__module__ == module.__name__
    )
    return network


def arguments_of(architecture: str) -> dict[str, inspect.Parameter]:
    """What params.yaml may say of an architecture: its arguments, but for the number of classes."""
    parameters = dict(inspect.signature(network_class(architecture)).parameters)
    del parameters["num_classes"]
    return parameters


def build_model(architecture: str, arguments: Mapping[str, Any], *, num_classes: int) -> Segmenter:
    """
    Raises:
        ValueError: the architecture cannot have these arguments.
    """
    return network_class(architecture)(num_classes=num_classes, **arguments)


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Raise the ``ValueError`` that ``build_model`` would, without making any weights."""
    with torch.device("meta"):
        build_model(architecture, arguments, num_classes=1)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
