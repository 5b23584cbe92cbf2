"""Tests of the initialisation with torchvision's weights, here made up under its names."""

import re
from typing import Any

import pytest
import torch
from small_networks import SETTINGS, random_images, randomise_batch_norm
from torch import Tensor
from torchvision import models as torchvision_models
from torchvision.models._utils import IntermediateLayerGetter

from deeplab_bench.models import build_model, list_arguments
from deeplab_bench.models.backbones import start_as_identities
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.weights import decimate, get_imagenet_weights, initialise_backbone

FULL: dict[str, Any] = {**SETTINGS, "width": 1.0, "output_stride": 32}


def full_model(architecture: str, **overrides: Any) -> Any:
    """Build a model of width 1 with -1 in all weights."""
    known = list_arguments(architecture)
    arguments = {key: value for key, value in FULL.items() if key in known} | overrides
    with torch.device("meta"):
        model = build_model(architecture, arguments, num_classes=3)
    for x in model.to_empty(device="cpu").state_dict().values():
        x.fill_(-1)
    return model


def counting_state(name: str) -> dict[str, Tensor]:
    """Make a state for torchvision's network; neighbours and tensors differ. It takes no memory."""
    with torch.device("meta"):
        shapes = torchvision_models.get_model(name, weights=None).state_dict()
    count, steps = torch.arange(100_000.0), (31, 7, 3, 1)
    return {
        key: count.as_strided(x.shape, steps[4 - x.ndim :], storage_offset=start)
        for start, (key, x) in enumerate(shapes.items())
    }


@pytest.fixture(scope="module")
def resnet18_state() -> dict[str, Tensor]:
    return counting_state("resnet18")


@pytest.fixture(scope="module")
def vgg16_state() -> dict[str, Tensor]:
    return counting_state("vgg16")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "vgg16"])
def test_imagenet_weights_are_those_of_the_backbone(backbone: Any) -> None:
    weights = get_imagenet_weights(backbone)
    assert weights.name == "IMAGENET1K_V1"
    assert weights.url.startswith(f"https://download.pytorch.org/models/{backbone}-")


@torch.no_grad()
def test_features_are_torchvisions_thereafter() -> None:
    torch.manual_seed(0)
    theirs: Any = torchvision_models.get_model("resnet50", weights=None)
    randomise_batch_norm(theirs).eval()
    model = full_model("aspp", backbone="resnet50", multi_grid=(1, 1, 1)).eval()
    images = random_images(1, 65, 97)
    stages = {f"layer{i}": f"layer{i}" for i in range(1, 5)}
    expected = list(IntermediateLayerGetter(theirs, stages)(images).values())
    initialise_backbone(model, theirs.state_dict())
    torch.testing.assert_close(model.backbone(images), expected, rtol=1e-4, atol=1e-4)
    assert all((p == -1).all() for p in model.new_parameters())


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_units_that_start_as_identities_pass_features_on_and_can_learn(backbone: str) -> None:
    """Compare the features after block5 to block7 with those of block4, in training mode."""
    torch.manual_seed(0)
    arguments = {"backbone": backbone, "width": 0.25, "output_stride": 16}
    model = build_model("cascade", arguments, num_classes=3)
    start_as_identities(model.backbone)
    *_, block4, block5, block6, block7 = model.backbone(torch.randn(2, 3, 65, 65))
    assert block4.std() > 0.1
    for features in (block5, block6, block7):
        assert torch.equal(features, block4)
    model.logits(torch.randn(2, 3, 65, 65)).square().sum().backward()
    last = model.backbone.get_submodule("layer7.1")
    gamma = last.get_parameter("bn3.weight" if backbone == "resnet50" else "bn2.weight")
    assert gamma.grad is not None and gamma.grad.any()  # the blocks can learn


@pytest.mark.parametrize("output_stride", [16, 256])
@pytest.mark.parametrize("stride_in", ["first", "last"])
def test_cascaded_blocks_start_from_block4(
    resnet18_state: dict[str, Tensor], output_stride: int, stride_in: str
) -> None:
    """Check that the first unit of a block gets the weights of block4's second unit."""
    model = full_model("cascade", output_stride=output_stride, stride_in=stride_in)
    initialise_backbone(model, resnet18_state)
    for block in ("layer5", "layer6", "layer7"):
        for unit in (0, 1):
            own = model.backbone.get_submodule(f"{block}.{unit}").state_dict()
            for key, value in own.items():
                if not key.endswith("num_batches_tracked"):
                    assert torch.equal(value, resnet18_state[f"layer4.1.{key}"]), key


def test_every_unit_of_a_deep_replica_has_its_source() -> None:
    model = full_model("cascade", backbone="resnet50", cascaded_blocks=1)
    state = counting_state("resnet50")
    initialise_backbone(model, state)
    for unit, source in enumerate([1, 1, 2]):
        weight = model.backbone.get_parameter(f"layer5.{unit}.conv2.weight")
        assert torch.equal(weight, state[f"layer4.{source}.conv2.weight"])


def test_files_without_batch_counts_are_good(resnet18_state: dict[str, Tensor]) -> None:
    old = {k: x for k, x in resnet18_state.items() if not k.endswith("num_batches_tracked")}
    model = full_model("fcn")
    initialise_backbone(model, old)
    assert torch.equal(model.backbone.conv1.weight, old["conv1.weight"])


# VGG-16


def test_decimation_takes_every_kth_entry() -> None:
    x = torch.arange(8 * 4 * 7 * 7).view(8, 4, 7, 7)
    assert torch.equal(decimate(x, (8, 4, 7, 7)), x)
    three, four = torch.tensor([0, 3, 6]), torch.tensor([0, 2, 4, 6])
    rows = torch.tensor([0, 4])
    expected = x[rows][:, :, three][..., three]
    assert torch.equal(decimate(x, (2, 4, 3, 3)), expected)
    assert torch.equal(decimate(x, (8, 4, 4, 4)), x[:, :, four][..., four])


@pytest.mark.parametrize(
    ("kernel_size", "channels", "taps"), [(3, 1024, (0, 3, 6)), (4, 512, (0, 2, 4, 6))]
)
def test_fc6_and_fc7_are_decimated_from_the_classifier(
    vgg16_state: dict[str, Tensor], kernel_size: int, channels: int, taps: tuple[int, ...]
) -> None:
    model = full_model(
        "largefov", backbone="vgg16", output_stride=8, kernel_size=kernel_size, channels=channels
    )
    initialise_backbone(model, vgg16_state)
    (layers,) = model.backbone.fully_connected
    every = 4096 // channels
    fc6 = vgg16_state["classifier.0.weight"].view(4096, 512, 7, 7)
    for i, y in enumerate(taps):
        for j, x in enumerate(taps):
            assert torch.equal(layers.fc6.weight[:, :, i, j], fc6[::every, :, y, x])
    assert torch.equal(layers.fc6.bias, vgg16_state["classifier.0.bias"][::every])
    fc7 = vgg16_state["classifier.3.weight"][::every, ::every]
    assert torch.equal(layers.fc7.weight[..., 0, 0], fc7)
    assert torch.equal(layers.fc7.bias, vgg16_state["classifier.3.bias"][::every])
    for key, value in model.backbone.features.state_dict().items():
        assert torch.equal(value, vgg16_state[f"features.{key}"]), key
    assert all((p == -1).all() for p in model.new_parameters())


def test_every_branch_starts_alike(vgg16_state: dict[str, Tensor]) -> None:
    model = full_model("aspp_sum", backbone="vgg16", output_stride=8, channels=512)
    initialise_backbone(model, vgg16_state)
    first, *others = (layers.state_dict() for layers in model.backbone.fully_connected)
    assert len(others) == 2
    for other in others:
        assert all(torch.equal(other[key], first[key]) for key in first)


# Refusals


def catch_refusal(model: Segmenter, state: dict[str, Tensor]) -> str:
    """Return the message of the refusal; the model must not change."""
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(ValueError) as caught:
        initialise_backbone(model, state)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())
    return str(caught.value)


def test_refuses_a_narrow_backbone(resnet18_state: dict[str, Tensor]) -> None:
    message = catch_refusal(full_model("fcn", width=0.5), resnet18_state)
    expected = r"the weights have conv1.weight, bn1.weight, bn1.bias and \d+ more in other shapes"
    assert re.match(expected, message) and "set width to that of the weights, 1 for" in message


def test_refuses_another_network(resnet18_state: dict[str, Tensor]) -> None:
    message = catch_refusal(full_model("fcn", backbone="resnet34"), resnet18_state)
    assert message.startswith("the weights lack layer1.2.conv1.weight, layer1.2.bn1.weight, ")
    kept = {k: x for k, x in resnet18_state.items() if k != "bn1.bias"}
    assert catch_refusal(full_model("fcn"), kept) == "the weights lack bn1.bias"
    more = resnet18_state | {"layer9.weight": torch.zeros(1)}
    message = catch_refusal(full_model("fcn"), more)
    assert message == "the weights have layer9.weight, which the backbone does not have"
    message = catch_refusal(
        full_model("cascade"), {k: x for k, x in kept.items() if "layer4" not in k}
    )
    assert message.startswith("the weights lack bn1.bias, layer4.0.conv1.weight")


def test_refuses_what_is_no_vgg16(
    resnet18_state: dict[str, Tensor], vgg16_state: dict[str, Tensor]
) -> None:
    settings = {"backbone": "vgg16", "output_stride": 8, "channels": 64}
    model = full_model("largefov", **settings)
    assert catch_refusal(model, resnet18_state).startswith("the weights lack classifier.0.weight")
    small = vgg16_state | {"classifier.0.weight": torch.zeros(4096, 512)}
    assert "classifier.0.weight has shape (4096, 512), not that of VGG-16" in catch_refusal(
        model, small
    )
    message = catch_refusal(full_model("largefov", **settings, batch_norm=True), vgg16_state)
    assert message.startswith("the weights lack features.1.weight")
    message = catch_refusal(full_model("largefov", **settings, kernel_size=5), vgg16_state)
    assert "fully_connected.0.fc6.weight in other shapes" in message
    message = catch_refusal(full_model("largefov", **settings | {"channels": 120}), vgg16_state)
    assert "channels to 4096 divided by an integer" in message
