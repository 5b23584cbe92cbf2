"""Tests of theoretical receptive fields against published ones and against gradients."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import build_on_meta, small_model
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from deeplab_bench.analysis.receptive_field import (
    Network,
    ReceptiveField,
    ReceptiveFieldError,
    compute_theoretical_field,
    find_seen_pixels,
)
from deeplab_bench.models.backbone import build_residual_stage
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.models.vgg import VGG16

# TF-slim's networks, as google-research/receptive_field and Araujo et al. (2019) give them: field
# and effective stride.
VGG16_ENDPOINTS = {
    "conv1_1": (3, 1),
    "pool1": (6, 2),
    "conv2_1": (10, 2),
    "pool2": (16, 4),
    "conv3_1": (24, 4),
    "pool3": (44, 8),
    "conv4_2": (76, 8),
    "pool4": (100, 16),
    "conv5_2": (164, 16),
    "pool5": (212, 32),
}
RESNET_BLOCKS: dict[tuple[int, ...], list[tuple[int, int]]] = {
    (3, 4, 6, 3): [(35, 8), (99, 16), (291, 32), (483, 32)],
    (3, 4, 23, 3): [(35, 8), (99, 16), (835, 32), (1027, 32)],
}


def size_and_stride(field: ReceptiveField) -> tuple[int | None, int]:
    return field.size, field.stride


def test_published_fields_of_vgg16() -> None:
    with torch.device("meta"):
        layers = VGG16(output_stride=32, kernel_size=7, rates=(1,), channels=8).features
    names, counts = [], [1, 1]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            names.append(f"conv{counts[0]}_{counts[1]}")
            counts[1] += 1
        elif isinstance(layer, nn.MaxPool2d):
            names.append(f"pool{counts[0]}")
            counts = [counts[0] + 1, 1]
        else:
            names.append("")
    found = {
        name: size_and_stride(compute_theoretical_field(layers[: index + 1]))
        for index, name in enumerate(names)
        if name in VGG16_ENDPOINTS
    }
    assert found == VGG16_ENDPOINTS


@pytest.mark.parametrize(("kernel_size", "size"), [(7, 404), (4, 308)])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_published_fields_of_fc6(kernel_size: int, size: int) -> None:
    """Check the fields in FCN, Table 1, and in DeepLabv1, Section 3.2."""
    with torch.device("meta"):
        network = VGG16(output_stride=32, kernel_size=kernel_size, rates=(1,), channels=8)
    assert size_and_stride(compute_theoretical_field(lambda x: network(x)[-1])) == (size, 32)


@pytest.mark.parametrize("depths", RESNET_BLOCKS)
def test_published_fields_of_resnets(depths: tuple[int, ...]) -> None:
    """Check ResNets as in TF-slim: the last unit of each block has the stride."""
    stem = [nn.Conv2d(3, 16, 7, stride=2, padding=3), nn.MaxPool2d(3, stride=2, padding=1)]
    layers, channels, found = nn.Sequential(*stem), 16, []
    with torch.device("meta"):
        for depth, stride in zip(depths, (2, 2, 2, 1), strict=True):
            layers.extend(
                build_residual_stage(
                    Bottleneck, channels, 16, depth=depth, stride=stride, stride_in="last"
                )
            )
            channels = 64
            found.append(compute_theoretical_field(layers.to("meta").eval()))
    assert [size_and_stride(field) for field in found] == RESNET_BLOCKS[depths]
    assert found[-1].centre == 0


@pytest.mark.parametrize(("backbone", "size"), [("resnet50", 483), ("resnet101", 1027)])
def test_strides_in_the_last_units_give_the_published_field(backbone: str, size: int) -> None:
    """Compare with TF-slim's networks at output stride 32."""
    network = build_on_meta(
        "cascade",
        backbone=backbone,
        width=1.0,
        output_stride=32,
        cascaded_blocks=0,
        multi_grid=(1, 1, 1),
        stride_in="last",
    )
    assert size_and_stride(compute_theoretical_field(network.logits)) == (size, 32)


def test_resnet_with_strides_in_the_first_units() -> None:
    """Check a larger field than in TF-slim, since the strides come earlier.

    The size is 7 after conv1 and 11 after its pool. Each 3x3 convolution adds twice its stride.
    """
    network = build_on_meta(
        "cascade",
        backbone="resnet50",
        width=1.0,
        output_stride=32,
        cascaded_blocks=0,
        multi_grid=(1, 1, 1),
    )
    size = 11 + 2 * (3 * 4 + (4 + 3 * 8) + (8 + 5 * 16) + (16 + 2 * 32))
    assert compute_theoretical_field(network.logits) == (size, 32, (size - 1) // 2, 0.0)


@pytest.mark.parametrize("architecture", ["aspp", "psp", "deeplabv3plus"])
def test_global_pooling_sees_the_whole_image(architecture: str) -> None:
    model = small_model(architecture).to("meta")
    assert compute_theoretical_field(model.logits).size is None


def test_a_field_within_the_largest_side() -> None:
    """Check the largest limited field in params.yaml: block7 with unit rates 1, 2 and 4."""
    network = build_on_meta(
        "cascade", backbone="resnet101", width=1.0, output_stride=16, multi_grid=(1, 2, 4)
    )
    blocks = 2 * 16 * 7 * (2 + 4 + 8 + 16)
    size = 11 + 2 * (3 * 4 + (4 + 3 * 8) + (8 + 22 * 16)) + blocks
    assert compute_theoretical_field(network.logits).size == size


CASES: list[tuple[str, dict[str, Any]]] = [
    *((architecture, {}) for architecture in ARCHITECTURES),
    ("aspp", {"image_pooling": False, "atrous_rates": (1, 4)}),
    ("psp", {"bins": (2, 3)}),
    ("psp", {"bins": (2, 3), "pooling": "max"}),
    ("image_pyramid", {"fusion": "attention"}),
    ("fcn", {"skips": 2, "output_stride": 32}),
    ("fcn", {"backbone": "vgg16", "width": 0.125, "output_stride": 32}),
    (
        "largefov",
        {
            "backbone": "vgg16",
            "width": 0.125,
            "output_stride": 8,
            "channels": 8,
            "atrous_rate": 3,
            "multi_scale_features": True,
            "average_pool5": True,
        },
    ),
    ("largefov", {"output_stride": 8, "kernel_size": 4, "atrous_rate": 2}),
    ("cascade", {"backbone": "efficientnet_lite0"}),
]


@pytest.mark.parametrize("size", [(48, 65), (1201, 17)])
@pytest.mark.parametrize(("architecture", "overrides"), CASES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_what_is_seen_is_what_has_a_gradient(
    architecture: str, overrides: dict[str, Any], size: tuple[int, int]
) -> None:
    """Compare with gradients: with positive weights, every pixel that is seen has a gradient."""
    model = positive(small_model(architecture, **overrides))
    height, width = size
    images = torch.rand(1, 3, height, width, dtype=torch.float64, requires_grad=True)
    logits = linear_logits(model, images)
    field = find_seen_pixels(model.to("meta").float().logits, height, width)
    for row, column in [(0, 0), (logits.shape[-2] // 2, logits.shape[-1] // 2), (-1, -1)]:
        (gradient,) = torch.autograd.grad(
            logits[0, :, row, column].sum(), images, retain_graph=True
        )
        seen = gradient[0].sum(dim=0).numpy() > 0
        for axis, span, position in ((1, field.rows, row), (0, field.columns, column)):
            pixels = np.flatnonzero(seen.any(axis=axis))
            assert (pixels[0], pixels[-1]) == (span.first[position], span.last[position])


def seen_rows(network: Network, height: int) -> list[tuple[int, int]]:
    rows = find_seen_pixels(network, height, 1).rows
    return list(zip(rows.first.tolist(), rows.last.tolist(), strict=True))


def test_taps_on_padding_see_nothing() -> None:
    """Check that a high rate makes a 3x3 convolution a 1x1 one (DeepLabv3, Section 3.3)."""
    kernel = torch.empty(1, 3, 3, 3, device="meta")
    for rate, expected in {
        2: [(0, 2), (1, 3), (0, 2), (1, 3)],
        3: [(0, 3), (1, 1), (2, 2), (0, 3)],
        5: [(0, 0), (1, 1), (2, 2), (3, 3)],
    }.items():
        conv = partial(F.conv2d, weight=kernel, padding=rate, dilation=rate)
        assert seen_rows(conv, 4) == expected


def test_a_resized_position_on_an_old_one_sees_it_alone() -> None:
    def to_nine(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(9, 1), mode="bilinear", align_corners=False)

    expected = [(0, 0), (0, 1), (0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (3, 4), (4, 4)]
    assert seen_rows(to_nine, 5) == expected


def test_corners_lie_on_corners() -> None:
    def to_seven(x: Tensor) -> Tensor:
        return F.interpolate(x, size=(7, 1), mode="bilinear", align_corners=True)

    expected = [(0, 0), (0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 4)]
    assert seen_rows(to_seven, 5) == expected
    assert seen_rows(to_seven, 1) == [(0, 0)] * 7
    one = partial(F.interpolate, size=(1, 1), mode="bilinear", align_corners=True)
    assert seen_rows(one, 5) == [(0, 0)]


def test_padding_sees_nothing() -> None:
    """A kernel sees only the image on the padding's side; negative padding cuts it off."""
    kernel = torch.empty(1, 3, 3, 3, device="meta")

    def conv_padded(x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 2, 1)), kernel)

    assert seen_rows(conv_padded, 4) == [(0, 0), (0, 1), (0, 2), (1, 3), (2, 3)]
    assert seen_rows(lambda x: F.pad(x, (0, 0, -1, -2)), 5) == [(1, 1), (2, 2)]


def positive(model: nn.Module) -> Any:
    for name, p in model.double().named_parameters():
        nn.init.constant_(p, 0.0 if name.endswith("bias") else 1 / max(1, p[0].numel()))
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.reset_running_stats()
            nn.init.ones_(m.weight)
    return model


def linear_logits(model: Any, images: Tensor) -> Tensor:
    """Replace maxima by means, since the gradient of a maximum reaches only one pixel.

    ReLU6 becomes the identity: above 6 it has no gradient.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu6", lambda x, inplace: x)
        patch.setattr(F, "max_pool2d", mean_pool)
        patch.setattr(Tensor, "amax", Tensor.mean)
        return model.logits(images)


def mean_pool(
    x: Tensor, kernel_size: int, stride: int, padding: int, *_: Any, ceil_mode: bool, **__: Any
) -> Tensor:
    return F.avg_pool2d(x, kernel_size, stride, padding, ceil_mode=ceil_mode)


def test_an_operation_without_a_rule_is_named() -> None:
    with pytest.raises(ReceptiveFieldError, match="torch's pixel_shuffle is not known"):
        find_seen_pixels(lambda x: F.pixel_shuffle(torch.cat([x] * 4, dim=1), 2), 8, 8)


def test_a_padding_without_a_rule_is_named() -> None:
    with pytest.raises(ReceptiveFieldError, match="mode 'reflect' is not known"):
        find_seen_pixels(lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), 8, 8)


def test_an_interpolation_without_a_rule_is_named() -> None:
    with pytest.raises(ReceptiveFieldError, match="'nearest' is not known"):
        find_seen_pixels(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), 8, 8)
