"""ImageNet weights of torchvision's classification networks, taken over by the backbones."""

import math
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from deeplab_bench.models.backbone import BackboneName
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16

# A count of BatchNorm's that nothing here reads; torchvision's older files lack it.
UNUSED = "num_batches_tracked"
# torchvision's names of VGG-16's linear layers, and the convolutions that they are.
LINEAR = {
    "fc6": ("classifier.0", (4096, 512, 7, 7)),
    "fc7": ("classifier.3", (4096, 4096, 1, 1)),
}


def imagenet_weights(backbone: BackboneName) -> WeightsEnum:
    """torchvision's weights from plain training, nearest to what the papers start from."""
    return get_model_weights(backbone)["IMAGENET1K_V1"]


def initialise(model: Segmenter, state: Mapping[str, Tensor]) -> None:
    """Start a model's backbone from the state of torchvision's classification network.

    The classifier is left out. Cascaded blocks start from the last stage, which they replicate;
    VGG-16's fc6 and fc7 from those of the classifier, of which smaller ones take every k-th tap
    and filter.

    Raises:
        ValueError: the state is of another network, or the backbone is not of full width or has
            layers that the network has not (``batch_norm``).
    """
    backbone = model.backbone
    expected = {key: x for key, x in backbone.state_dict().items() if not key.endswith(UNUSED)}
    given = {
        key: x
        for key, x in state.items()
        if not key.startswith(("fc.", "classifier.")) and not key.endswith(UNUSED)
    }
    if isinstance(backbone, VGG16):
        given |= fully_convolutional(state, expected)
    else:
        given |= replicas(given, expected, backbone.stages[4:])

    refuse("lack {}", [key for key in expected if key not in given])
    refuse("have {}, which the backbone has not", [key for key in given if key not in expected])
    refuse(
        "have {} in other shapes than the backbone: it needs width 1, and vgg16 a kernel_size of "
        "3, 4 or 7 and for channels every k-th of 4096",
        [key for key, x in expected.items() if given[key].shape != x.shape],
    )
    backbone.load_state_dict(given, strict=False)


def replicas(
    given: Mapping[str, Tensor], expected: Iterable[str], blocks: Sequence[str]
) -> dict[str, Tensor]:
    """The last stage's state under the names of the cascaded ``blocks``.

    The first unit of each starts from the stage's second: its first takes fewer channels.
    """
    state = {}
    for key in expected:
        block, *inner = key.split(".", maxsplit=2)
        if block in blocks:
            unit, name = inner
            source = f"layer4.{max(1, int(unit))}.{name}"
            if source in given:
                state[key] = given[source]
    return state


def fully_convolutional(
    given: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state of VGG-16's first two linear layers under the names of every fc6 and fc7."""
    state = {}
    for name, (linear, shape) in LINEAR.items():
        weight, bias = f"{linear}.weight", f"{linear}.bias"
        refuse("lack {}", [key for key in (weight, bias) if key not in given])
        if given[weight].numel() != math.prod(shape):
            raise ValueError(f"the weights' {weight} is {tuple(given[weight].shape)}, not VGG-16's")
        values = {"weight": given[weight].reshape(shape), "bias": given[bias]}
        for key, x in expected.items():
            *_, layer, kind = key.split(".")
            if layer == name:
                state[key] = decimated(values[kind], x.shape)
    return state


def decimated(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Every k-th entry along each dimension, from the first (DeepLabv1, Section 3.2)."""
    for dim, wanted in enumerate(shape):
        k = -(-x.shape[dim] // wanted)
        x = x[(slice(None),) * dim + (slice(None, None, k),)]
    return x


def refuse(problem: str, keys: Sequence[str]) -> None:
    """Raise ``ValueError`` if there are such keys, the first of them in place of ``{}``."""
    if keys:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise ValueError(f"the weights {problem.format(', '.join(keys[:3]) + more)}")
