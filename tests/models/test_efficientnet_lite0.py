"""Tests of EfficientNet-Lite0 against timm's network, with its published weights and others."""

from typing import Any

import pytest
import timm
import torch
from small_networks import random_images, randomise_batch_norm
from torch import Tensor, nn

from deeplab_bench.models import build_model
from deeplab_bench.models.backbones import start_as_identities
from deeplab_bench.models.efficientnet_lite0 import EfficientNetLite0
from deeplab_bench.models.weights import initialise_backbone
from deeplab_bench.training.pretrained import read_weights

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_weights("imagenet", NAME)
    return weights


def timm_network(state: dict[str, Tensor]) -> Any:
    """Build timm's network with TensorFlow's padding; its tensors have the order of the file's."""
    network: Any = timm.create_model(f"tf_{NAME}", pretrained=False)
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval()


def random_backbone(**arguments: Any) -> EfficientNetLite0:
    torch.manual_seed(0)
    model = EfficientNetLite0(**{"width": 0.25, **arguments}).double()
    randomise_batch_norm(model)
    return model.eval()


def rates(model: EfficientNetLite0) -> list[int]:
    """List the atrous rates of the units from the first to the last."""
    *before, last = model._blocks
    convs = [unit._depthwise_conv for unit in (*before, *model._copies, last)]
    assert all(conv.padding[0] == conv.dilation[0] * (conv.kernel_size[0] // 2) for conv in convs)
    return [conv.dilation[0] for conv in convs]


@pytest.mark.parametrize("size", [(65, 97), (225, 161)])
@torch.no_grad()
def test_features_are_timms(published: dict[str, Tensor], size: tuple[int, int]) -> None:
    model = build_model(
        "fcn", {"backbone": NAME, "width": 1.0, "output_stride": 32}, num_classes=3
    ).eval()
    initialise_backbone(model, published)
    images = random_images(2, *size)
    theirs = timm_network(published).forward_intermediates(images, intermediates_only=True)
    torch.testing.assert_close(model.backbone(images), theirs[1:], rtol=1e-5, atol=1e-5)


def test_the_network_is_timms(published: dict[str, Tensor]) -> None:
    """Compare all layers, and the number of parameters: 4,652,008 with the classifier."""
    theirs = timm_network(published)
    with torch.device("meta"):
        ours = EfficientNetLite0(output_stride=32)
    classifier = sum(p.numel() for p in [*theirs.conv_head.parameters(), *theirs.bn2.parameters()])
    classifier += sum(p.numel() for p in theirs.classifier.parameters())
    assert sum(p.numel() for p in ours.parameters()) + classifier == 4_652_008
    own_layers, their_layers = (
        [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
        for network in (ours, theirs)
    )
    for own, other in zip(own_layers, their_layers[:-2], strict=True):
        if isinstance(own, nn.Conv2d):
            assert (own.stride, own.groups, own.bias) == (other.stride, other.groups, other.bias)
        else:
            assert own.eps == other.eps


def test_it_normalises_as_timm_does() -> None:
    settings: Any = timm.create_model(f"tf_{NAME}", pretrained=False).default_cfg
    assert (EfficientNetLite0.colours.mean, EfficientNetLite0.colours.std) == (
        settings["mean"],
        settings["std"],
    )


@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_atrous_form_is_exact(output_stride: Any) -> None:
    """Compare with output stride 32 at the positions that both have."""
    arguments: dict[str, Any] = {"multi_grid": (1, 2, 4), "cascaded_blocks": 1}
    strided = random_backbone(output_stride=64, **arguments)
    atrous = random_backbone(output_stride=output_stride, **arguments)
    atrous.load_state_dict(strided.state_dict())
    images = random_images(1, 129, 193).double()
    for coarse, fine in zip(strided(images), atrous(images), strict=True):
        step = (fine.shape[-1] - 1) // (coarse.shape[-1] - 1)
        assert coarse.std() > 0.01
        torch.testing.assert_close(fine[..., ::step, ::step], coarse)


def test_rates_and_strides() -> None:
    with torch.device("meta"):
        at_16 = EfficientNetLite0(output_stride=16, multi_grid=(1, 2, 4), cascaded_blocks=2)
        at_8 = EfficientNetLite0(output_stride=8)
    # The unit that had a stride keeps the rate before it.
    block4, block5, block6 = [2, 4, 8], [2, 8, 16], [4, 16, 32]
    assert rates(at_16) == [1] * 12 + block4 + block5 + block6 + [8]
    assert at_16.stage_strides == [4, 8, 16, 16, 16, 16]
    assert at_16.stage_channels == [24, 40, 112, 192, 192, 320]
    assert rates(at_8) == [1] * 6 + [2] * 6 + [4] * 4
    assert at_8.stage_strides == [4, 8, 8, 8] and at_8.stage_channels == [24, 40, 112, 320]


def test_cascaded_blocks_start_as_identities() -> None:
    torch.manual_seed(0)
    model = EfficientNetLite0(output_stride=16, width=0.25, cascaded_blocks=3)
    start_as_identities(model)
    *_, block4, block5, block6, _ = model(random_images(2, 65, 65))
    assert block4.std() > 0.01
    assert torch.equal(block5, block4) and torch.equal(block6, block4)


def test_cascaded_blocks_copy_the_weights(published: dict[str, Tensor]) -> None:
    arguments = {"backbone": NAME, "width": 1.0, "output_stride": 16, "cascaded_blocks": 2}
    model = build_model("cascade", arguments, num_classes=3)
    initialise_backbone(model, published)
    for number, source in enumerate([12, 13, 14, 12, 13, 14]):
        own = model.backbone.get_submodule(f"_copies.{number}").state_dict()
        assert len(own) == 18
        for key, value in own.items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(value, published[f"_blocks.{source}.{key}"]), key


def test_narrow_networks_keep_the_shortcuts() -> None:
    """At a small width, the first unit of a stage may have as many channels at both ends."""
    for width in (0.25, 1.0):
        with torch.device("meta"):
            model = EfficientNetLite0(output_stride=32, width=width)
        shortcuts = [index for index, unit in enumerate(model._blocks) if unit.has_shortcut]
        assert shortcuts == [2, 4, 6, 7, 9, 10, 12, 13, 14]


@pytest.mark.parametrize("model", ["fcn", "cascade", "largefov", "aspp_sum"])
def test_no_classifier_is_bare(model: str) -> None:
    """Check that a normalised, rectified map stands between the linear last map and the classes."""
    arguments: dict[str, Any] = {"backbone": NAME, "width": 0.25, "output_stride": 16}
    if model in ("largefov", "aspp_sum"):
        arguments |= {"channels": 24}
    if model == "aspp_sum":
        arguments |= {"atrous_rates": [1, 2]}
    network: Any = build_model(model, arguments, num_classes=3)
    heads = network.classifiers if model in ("largefov", "aspp_sum") else [network.classifier]
    assert len(heads) == (2 if model == "aspp_sum" else 1)
    for head in heads:
        kinds = [type(layer).__name__ for layer in head.modules()]
        assert kinds.index("BatchNorm2d") < kinds.index("ReLU") < len(kinds) - 1
        assert kinds[-1] == "Conv2d"
    logits = network.eval().logits(random_images(1, 65, 65))
    assert logits.shape == (1, 3, 5, 5)


def test_the_summed_branches_have_their_rates() -> None:
    arguments = {"backbone": NAME, "width": 0.25, "output_stride": 16, "channels": 24}
    network: Any = build_model("aspp_sum", arguments | {"atrous_rates": [1, 3]}, num_classes=3)
    convolutions = [
        next(m for m in x.modules() if isinstance(m, nn.Conv2d)) for x in network.classifiers
    ]
    assert [conv.dilation for conv in convolutions] == [(1, 1), (3, 3)]
    assert [conv.out_channels for conv in convolutions] == [24, 24]


def test_even_kernels_are_refused() -> None:
    arguments = {"backbone": NAME, "width": 0.25, "output_stride": 16, "kernel_size": 4}
    with pytest.raises(ValueError, match="kernel_size 4 must be odd with efficientnet_lite0"):
        build_model("largefov", arguments, num_classes=3)
