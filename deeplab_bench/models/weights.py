"""Initialisation of a backbone with the weights of a classification network.

``training.pretrained`` reads the weights from a file; this module copies them into a model.
"""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16

# A counter of batch normalisation. It is not used here, and torchvision's older files lack it.
UNUSED = "num_batches_tracked"
# What follows the last feature map: torchvision's names, then EfficientNet-Lite0's.
CLASSIFIERS = ("fc.", "classifier.", "_conv_head.", "_bn1.", "_fc.")
# torchvision's names of VGG-16's linear layers, and their weights' shapes as convolutions.
LINEAR = {
    "fc6": ("classifier.0", (4096, 512, 7, 7)),
    "fc7": ("classifier.3", (4096, 4096, 1, 1)),
}


def get_imagenet_weights(backbone: BackboneName) -> WeightsEnum:
    """Return torchvision's first ImageNet weights, the nearest to those of the papers."""
    return get_model_weights(backbone)["IMAGENET1K_V1"]


def initialise_backbone(model: Segmenter, state: Mapping[str, Tensor]) -> None:
    """Initialise a model's backbone with the state of the classification network of its name.

    The classifier is not used. Cascaded blocks get the weights of the last stage. VGG-16's fc6 and
    fc7 get those of the linear layers; if they are smaller, every k-th weight along each dimension
    (DeepLabv1, Section 3.2).

    Raises:
        ValueError: the state belongs to another network or is of another width, or the backbone has
            additional layers (``batch_norm``).
    """
    backbone = model.backbone
    expected = {key: x for key, x in backbone.state_dict().items() if not key.endswith(UNUSED)}
    given = {
        key: x
        for key, x in state.items()
        if not key.startswith(CLASSIFIERS) and not key.endswith(UNUSED)
    }
    if isinstance(backbone, VGG16):
        given |= convert_linear_layers(state, expected)
    else:
        sources = {key: backbone.find_source(key) for key in expected}
        given |= {key: given[source] for key, source in sources.items() if source in given}

    refuse("lack {}", [key for key in expected if key not in given])
    refuse(
        "have {}, which the backbone does not have", [key for key in given if key not in expected]
    )
    refuse(
        "have {} in other shapes than the backbone: set width to that of the weights, 1 for "
        "ImageNet; for vgg16, set kernel_size to 3, 4 or 7 and channels to 4096 divided by an "
        "integer",
        [key for key, x in expected.items() if given[key].shape != x.shape],
    )
    backbone.load_state_dict(given, strict=False)


def convert_linear_layers(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Convert VGG-16's first two linear layers to the state of every fc6 and fc7."""
    state = {}
    for name, (linear, shape) in LINEAR.items():
        weight, bias = f"{linear}.weight", f"{linear}.bias"
        refuse("lack {}", [key for key in (weight, bias) if key not in given])
        if given[weight].numel() != math.prod(shape):
            raise ValueError(
                f"the weights' {weight} has shape {tuple(given[weight].shape)}, not that of VGG-16"
            )
        values = {"weight": given[weight].reshape(shape), "bias": given[bias]}
        for key, x in expected.items():
            *_, layer, kind = key.split(".")
            if layer == name:
                state[key] = decimate(values[kind], x.shape)
    return state


def decimate(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Take every k-th entry along each dimension, from the first (DeepLabv1, Section 3.2)."""
    for dim, wanted in enumerate(shape):
        k = -(-x.shape[dim] // wanted)
        x = x[(slice(None),) * dim + (slice(None, None, k),)]
    return x


def refuse(problem: str, keys: Sequence[str]) -> None:
    """Raise ``ValueError`` if ``keys`` is not empty; the first keys replace ``{}``."""
    if keys:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise ValueError(f"the weights {problem.format(', '.join(keys[:3]) + more)}")
