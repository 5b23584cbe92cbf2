"""The architectures: one file each, and one line in ``ARCHITECTURES``.

An architecture is a ``Segmenter`` whose keyword-only constructor is its schema: the names that
``params.yaml`` may give are the names of its arguments. It maps images (N, 3, H, W), normalised,
to logits (N, num_classes, H, W).
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from deeplab_bench.models.aspp import ASPP
from deeplab_bench.models.aspp_sum import ASPPSum
from deeplab_bench.models.cascade import Cascade
from deeplab_bench.models.deeplabv3plus import DeepLabV3Plus
from deeplab_bench.models.encoder_decoder import EncoderDecoder
from deeplab_bench.models.fcn import FCN
from deeplab_bench.models.image_pyramid import ImagePyramid
from deeplab_bench.models.largefov import LargeFOV
from deeplab_bench.models.psp import PSP
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.unet import UNet

ARCHITECTURES: dict[str, type[Segmenter]] = {
    "fcn": FCN,
    "largefov": LargeFOV,
    "aspp_sum": ASPPSum,
    "image_pyramid": ImagePyramid,
    "encoder_decoder": EncoderDecoder,
    "cascade": Cascade,
    "aspp": ASPP,
    "psp": PSP,
    "deeplabv3plus": DeepLabV3Plus,
    "unet": UNet,
}


def arguments_of(architecture: str) -> dict[str, inspect.Parameter]:
    """What params.yaml may say of an architecture: its arguments, but for the number of classes."""
    parameters = dict(inspect.signature(ARCHITECTURES[architecture]).parameters)
    del parameters["num_classes"]
    return parameters


def build_model(architecture: str, arguments: Mapping[str, Any], *, num_classes: int) -> Segmenter:
    """
    Raises:
        ValueError: the architecture cannot have these arguments.
    """
    return ARCHITECTURES[architecture](num_classes=num_classes, **arguments)


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Raise the ``ValueError`` that ``build_model`` would, without making any weights."""
    with torch.device("meta"):
        build_model(architecture, arguments, num_classes=1)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
