"""Tests of the decoders of DeepLabv3+ and U-Net against their definitions."""

from typing import Any

import pytest
import torch
from small_networks import (
    build_on_meta,
    count_positions,
    interpolate_by_hand,
    random_images,
    small_model,
)
from torch import nn
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter

from deeplab_bench.models import count_parameters


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def conv_bn(in_channels: int, out_channels: int, kernel: int) -> int:
    """Count the parameters of a convolution with batch normalisation."""
    return in_channels * out_channels * kernel**2 + 2 * out_channels


def torchvision_stages(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Compute the four maps of torchvision's ResNet-18 with the model's weights."""
    resnet = get_model("resnet18", weights=None).eval()
    resnet.load_state_dict(model.backbone.state_dict(), strict=False)
    getter = IntermediateLayerGetter(resnet, {f"layer{i}": f"layer{i}" for i in range(1, 5)})
    return list(getter(images).values())


@pytest.mark.parametrize("size", [(65, 97), (50, 71)])
def test_deeplabv3plus_decoder_equals_its_definition(size: tuple[int, int]) -> None:
    model = small_model("deeplabv3plus", low_level_channels=6)
    images = random_images(2, *size)
    low, *_, high = model.backbone(images)
    context = interpolate_by_hand(model.pyramid(high), 1 / 4, low.shape[-2:])
    x = torch.cat([context, model.reduce(low)], dim=1)
    assert x.shape == (2, 8 + 6, *count_positions(size, 16, 4))
    for layer in model.decoder:
        x = layer(x)
    expected = model.classifier(x)
    torch.testing.assert_close(model.logits(images), expected)
    # Both ends matter.
    nn.init.zeros_(model.reduce[0].weight)
    assert (model.logits(images) - expected).abs().max() > 1e-3


def test_deeplabv3plus_adds_the_papers_decoder_to_deeplabv3() -> None:
    common = {"backbone": "resnet50", "width": 1.0, "output_stride": 16, "head_channels": 256}
    common |= {"atrous_rates": (6, 12, 18), "multi_grid": (1, 2, 4)}
    decoder = conv_bn(256, 48, 1) + conv_bn(256 + 48, 256, 3) + conv_bn(256, 256, 3)
    before, after = (build_on_meta(name, **common) for name in ("aspp", "deeplabv3plus"))
    assert count_parameters(after) - count_parameters(before) == decoder


def test_deeplabv3plus_keeps_image_pooling_and_multi_grid() -> None:
    model = small_model("deeplabv3plus", backbone="resnet50")
    assert len(model.pyramid.branches) == 1 + 3 + 1
    rates = [unit.conv2.dilation[0] for unit in model.backbone.layer4]
    assert rates == [2, 4, 8]


def test_unet_equals_its_definition_over_torchvisions_resnet() -> None:
    model = small_model("unet", width=1.0, output_stride=32)
    images = random_images(1, 65, 97)
    c2, c3, c4, x = torchvision_stages(model, images)
    for skip, (first, second) in zip((c4, c3, c2), reversed(list(model.merges)), strict=True):
        up = interpolate_by_hand(x, 1 / 2, skip.shape[-2:])
        x = second(first(torch.cat([skip, up], dim=1)))
        assert x.shape == skip.shape
    assert x.shape[-2:] == (17, 25)
    torch.testing.assert_close(model.logits(images), model.classifier(x), rtol=1e-4, atol=1e-4)


def test_unet_has_two_convolutions_at_every_step() -> None:
    model = build_on_meta("unet", backbone="resnet50", width=1.0, output_stride=32)
    steps = [(1024 + 2048, 1024), (512 + 1024, 512), (256 + 512, 256)]
    decoder = sum(conv_bn(a, b, 3) + conv_bn(b, b, 3) for a, b in steps) + (256 + 1) * 21
    assert count_parameters(model) == count_parameters(model.backbone) + decoder
