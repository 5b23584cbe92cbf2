"""Tests of what all architectures share, and of each against an independent implementation."""

import inspect
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from small_networks import (
    NUM_CLASSES,
    SETTINGS,
    build_on_meta,
    copy_in_order,
    interpolate_by_hand,
    random_images,
    randomise_batch_norm,
    small_model,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, get_model_weights
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import deeplabv3, fcn

from deeplab_bench.models import (
    build_model,
    check_arguments,
    count_parameters,
    find_network_class,
    list_arguments,
)
from deeplab_bench.models.aspp import AtrousPyramid
from deeplab_bench.models.layers import (
    adaptive_average_pool,
    adaptive_max_pool,
    build_conv_bn_relu,
    resize_cells,
)
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.loading import load_params

pytestmark = pytest.mark.long(seconds=30)

COMMITTED = Path(__file__).parents[2] / "params.yaml"
VGG = {"backbone": "vgg16", "output_stride": 8, "width": 0.125}
SMALL_FC = {"channels": 8, "atrous_rate": 2}
VARIANTS = [
    *(pytest.param(name, {}, id=name) for name in ARCHITECTURES),
    pytest.param("fcn", {"output_stride": 32}, id="fcn-32s"),
    pytest.param("fcn", {"output_stride": 32, "skips": 2}, id="fcn-8s"),
    pytest.param("fcn", {**VGG, "output_stride": 32, "skips": 2}, id="fcn-8s-vgg16"),
    pytest.param("largefov", {**VGG, **SMALL_FC}, id="largefov-vgg16"),
    pytest.param(
        "largefov", {**VGG, **SMALL_FC, "kernel_size": 4, "batch_norm": True}, id="largefov-4x4"
    ),
    pytest.param("largefov", {**VGG, **SMALL_FC, "multi_scale_features": True}, id="largefov-msc"),
    pytest.param("aspp_sum", {**VGG, "channels": 8}, id="aspp_sum-vgg16"),
    pytest.param("aspp_sum", {"scales": (0.5, 1.0)}, id="aspp_sum-two-scales"),
    pytest.param("psp", {"pooling": "max", "auxiliary_weight": 0.4}, id="psp-max-auxiliary"),
    pytest.param("unet", {"output_stride": 32}, id="unet-32"),
    pytest.param(
        "cascade", {"output_stride": 256, "multi_grid": (1, 1, 1)}, id="cascade-stride-256"
    ),
    pytest.param("image_pyramid", {"fusion": "mean"}, id="image_pyramid-mean"),
    pytest.param("image_pyramid", {"fusion": "attention"}, id="image_pyramid-attention"),
    pytest.param("encoder_decoder", {"output_stride": 32}, id="encoder_decoder-32"),
    pytest.param("cascade", {"cascaded_blocks": 0}, id="cascade-to-block4"),
    pytest.param("aspp", {"image_pooling": False}, id="aspp-no-image-pooling"),
    pytest.param("aspp", {"backbone": "resnet50", "output_stride": 8}, id="aspp-resnet50-8"),
]
LITE = {"backbone": "efficientnet_lite0"}
VARIANTS += [pytest.param(name, LITE, id=f"{name}-lite0") for name in ARCHITECTURES]
VARIANTS += [
    pytest.param("fcn", {**LITE, "output_stride": 32, "skips": 2}, id="fcn-8s-lite0"),
    pytest.param("cascade", {**LITE, "output_stride": 256}, id="cascade-stride-256-lite0"),
    pytest.param("aspp", {**LITE, "output_stride": 8}, id="aspp-8-lite0"),
]
every_variant = pytest.mark.parametrize(("architecture", "overrides"), VARIANTS)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: for maps this small, several are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def resnet50_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = get_model("resnet50", weights=None)
    del model.fc
    return randomise_batch_norm(model).state_dict()


def torchvision_resnet50(
    state: dict[str, Tensor],
    dilated: Sequence[bool],
    block4_rates: Sequence[int] | None = None,
) -> nn.Module:
    with torch.device("meta"):
        model = get_model("resnet50", weights=None, replace_stride_with_dilation=list(dilated))
        del model.fc
    model.load_state_dict(state, assign=True)
    if block4_rates is not None:
        for unit, rate in zip(model.layer4, block4_rates, strict=True):
            unit.conv2.dilation = unit.conv2.padding = (rate, rate)
    return cast(nn.Module, model)


# All architectures


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_constructor_is_the_schema(architecture: str) -> None:
    parameters = inspect.signature(find_network_class(architecture)).parameters
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert all(p.annotation is not p.empty for p in parameters.values())
    assert parameters.keys() >= {"num_classes", "backbone", "width", "output_stride"}
    assert list_arguments(architecture).keys() == parameters.keys() - {"num_classes"}


@pytest.mark.parametrize("size", [(65, 97), (50, 71), (64, 64)])
@every_variant
@torch.no_grad()
def test_logits_have_the_size_of_the_image(
    architecture: str, overrides: dict[str, Any], size: tuple[int, int]
) -> None:
    logits = small_model(architecture, **overrides)(random_images(1, *size))
    assert logits.shape == (1, NUM_CLASSES, *size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all() and logits.std() > 1e-3


@every_variant
@torch.no_grad()
def test_an_image_alone_gives_what_it_gives_in_a_batch(
    architecture: str, overrides: dict[str, Any]
) -> None:
    model, images = small_model(architecture, **overrides), random_images(3, 65, 97)
    alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(model(images), alone, rtol=1e-4, atol=1e-4)


@every_variant
def test_gradients_reach_every_parameter(architecture: str, overrides: dict[str, Any]) -> None:
    """Use fixed statistics: those of a batch take away a shift, and with it its gradient."""
    model = small_model(architecture, **overrides)
    images = random_images(4, 65, 97)
    labels = torch.randint(NUM_CLASSES, (4, 65, 97), generator=torch.Generator().manual_seed(2))
    losses = [
        weight * F.cross_entropy(F.interpolate(logits, size=labels.shape[-2:]), labels)
        for weight, logits in model.training_logits(images)
    ]
    torch.stack(losses).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all() and p.grad.abs().max() > 1e-8, name


@every_variant
def test_a_seed_determines_logits_and_gradients(
    architecture: str, overrides: dict[str, Any]
) -> None:
    results = []
    for _ in range(2):
        model = small_model(architecture, **overrides).train()
        logits = model(random_images(2, 50, 71))
        logits.square().mean().backward()
        results.append([logits, *(p.grad for p in model.parameters())])
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


@every_variant
@torch.no_grad()
def test_state_dict_round_trip(architecture: str, overrides: dict[str, Any]) -> None:
    model = small_model(architecture, seed=0, **overrides)
    other = small_model(architecture, seed=1, **overrides)
    images = random_images(1, 50, 71)
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images), model(images))


@every_variant
@torch.no_grad()
def test_channels_last_changes_nothing(architecture: str, overrides: dict[str, Any]) -> None:
    model, images = small_model(architecture, **overrides), random_images(2, 65, 97)
    expected = model(images)
    model.to(memory_format=torch.channels_last)
    logits = model(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@every_variant
@torch.no_grad()
def test_bfloat16_autocast_is_near(architecture: str, overrides: dict[str, Any]) -> None:
    model, images = small_model(architecture, **overrides), random_images(1, 65, 97)
    expected = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32
    assert logits.shape == expected.shape and logits.isfinite().all()
    assert (logits - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_settings_are_checked_without_weights(architecture: str) -> None:
    known = list_arguments(architecture)
    arguments = {key: value for key, value in SETTINGS.items() if key in known}
    check_arguments(architecture, arguments)
    with pytest.raises(ValueError, match="output_stride 4 is not one of 8, 16, 32"):
        check_arguments(architecture, arguments | {"output_stride": 4})
    with pytest.raises(ValueError, match="backbone 'vgg19' is not one of"):
        check_arguments(architecture, arguments | {"backbone": "vgg19"})


@pytest.mark.parametrize("architecture", ["cascade", "aspp", "psp", "unet"])
def test_vgg_is_no_backbone_of_later_architectures(architecture: str) -> None:
    known = list_arguments(architecture)
    arguments = {key: value for key, value in SETTINGS.items() if key in known}
    with pytest.raises(ValueError, match="backbone 'vgg16' is not one of resnet18"):
        check_arguments(architecture, arguments | {"backbone": "vgg16"})


@every_variant
@torch.no_grad()
def test_forward_upsamples_the_logits(architecture: str, overrides: dict[str, Any]) -> None:
    """Check also that training supervises the same logits, with weight 1."""
    model, images = small_model(architecture, **overrides), random_images(2, 50, 71)
    logits = model.logits(images)
    stride, between = model.grid.stride, 0.0
    if logits.shape[-1] > 1:
        stride = (model.grid.pad_side(71) - 1) // (logits.shape[-1] - 1)
    if not model.grid.from_first_pixel:
        stride = model.grid.pad_side(71) // logits.shape[-1]
        between = (stride - 1) / 2
    expected = interpolate_by_hand(logits, 1 / stride, (50, 71), first=-between / stride)
    torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)
    weight, supervised = model.training_logits(images)[0]
    assert weight == 1
    torch.testing.assert_close(supervised, logits)


@every_variant
def test_new_parameters_are_all_but_the_backbones(
    architecture: str, overrides: dict[str, Any]
) -> None:
    model: Any = small_model(architecture, **overrides)
    new, everything = set(model.new_parameters()), set(model.parameters())
    assert new and new.isdisjoint(model.backbone.parameters())
    assert new | set(model.backbone.parameters()) == everything


# Layers


def test_conv_bn_relu_keeps_the_resolution() -> None:
    x = random_images(1, 13, 17)
    for kernel_size, rate in [(1, 1), (3, 1), (3, 6), (3, 18)]:
        layer = build_conv_bn_relu(3, 4, kernel_size, rate).eval()
        assert layer(x).shape == (1, 4, 13, 17)
        assert layer(x).min() >= 0
        assert [type(m) for m in layer.children()] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]


def test_atrous_convolution_samples_at_its_rate() -> None:
    """Check y[i] = sum over k of x[i + rate * k] w[k] (DeepLabv3, Equation 1), zero outside."""
    rate, x = 4, random_images(1, 9, 11)
    conv = cast(nn.Conv2d, next(build_conv_bn_relu(3, 2, 3, rate).children()))
    expected = torch.zeros(2, 9, 11)
    for i, j, dy, dx in np.ndindex(9, 11, 3, 3):
        y, z = i + rate * (dy - 1), j + rate * (dx - 1)
        if 0 <= y < 9 and 0 <= z < 11:
            expected[:, i, j] += conv.weight[:, :, dy, dx].detach() @ x[0, :, y, z]
    torch.testing.assert_close(conv(x)[0], expected)


def test_cells_are_resized_between_their_middles() -> None:
    x, size = random_images(1, 4, 6), (9, 13)
    rows, columns = (bilinear_weights(a, b) for a, b in zip((4, 6), size, strict=True))
    expected = np.einsum("yh,chw,xw->cyx", rows, x[0].numpy(), columns)
    actual = resize_cells(x, torch.empty(2, 1, *size))
    torch.testing.assert_close(actual[0], torch.from_numpy(expected).float())


def bilinear_weights(source: int, target: int) -> np.ndarray:
    """Compute weights (target, source) of the two source centres nearest to each target centre."""
    weights = np.zeros((target, source))
    for i in range(target):
        centre = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
        low = math.floor(centre)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, source - 1)] += centre - low
    return weights


# Against torchvision


@pytest.mark.parametrize("rates", [(6, 12, 18), (12, 24, 36), (1, 2)])
@torch.no_grad()
def test_atrous_pyramid_equals_torchvisions(rates: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs = randomise_batch_norm(deeplabv3.ASPP(16, rates, out_channels=8)).eval()
    ours = AtrousPyramid(16, 8, rates, image_pooling=True).eval()
    copy_in_order(theirs, ours)
    features = torch.randn(2, 16, 33, 41)
    torch.testing.assert_close(ours(features), theirs(features))


@pytest.mark.parametrize("architecture", ["aspp", "deeplabv3plus"])
@torch.no_grad()
def test_dropout_follows_the_projection_in_training_alone(architecture: str) -> None:
    model: Any = small_model(architecture, dropout=0.25, head_channels=64)
    plain: Any = small_model(architecture, head_channels=64)
    images = random_images(2, 65, 97)
    features = model.backbone(images)[-1]
    whole = plain.pyramid(features)
    torch.testing.assert_close(model(images), plain(images))
    model.pyramid.dropout.train()
    dropped = model.pyramid(features)
    zeroed = (dropped == 0) & (whole > 0)
    assert zeroed.sum() / (whole > 0).sum() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(dropped[~zeroed], whole[~zeroed] / 0.75)


@pytest.mark.parametrize("multi_grid", [(1, 1, 1), (1, 2, 4)])
@torch.no_grad()
def test_aspp_equals_torchvisions_deeplabv3(
    resnet50_state: dict[str, Tensor], multi_grid: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    rates = (6, 12, 18)
    backbone = torchvision_resnet50(
        resnet50_state, (False, False, True), [2 * rate for rate in multi_grid]
    )
    head = nn.Sequential(deeplabv3.ASPP(2048, rates), nn.Conv2d(256, 21, kernel_size=1))
    theirs = deeplabv3.DeepLabV3(
        IntermediateLayerGetter(backbone, {"layer4": "out"}), randomise_batch_norm(head)
    )
    ours = build_model(
        "aspp",
        {
            "backbone": "resnet50",
            "width": 1,
            "output_stride": 16,
            "atrous_rates": rates,
            "head_channels": 256,
            "multi_grid": multi_grid,
        },
        num_classes=21,
    )
    copy_in_order(theirs, ours)
    images = random_images(1, 97, 65)
    logits = theirs.classifier(theirs.eval().backbone(images)["out"])
    expected = interpolate_by_hand(logits, 1 / 16, (97, 65))
    torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("output_stride", "dilated"), [(8, (False, True, True)), (32, (False, False, False))]
)
@torch.no_grad()
def test_fcn_equals_torchvisions(
    resnet50_state: dict[str, Tensor], output_stride: int, dilated: tuple[bool, ...]
) -> None:
    torch.manual_seed(0)
    backbone = torchvision_resnet50(resnet50_state, dilated)
    theirs = fcn.FCN(
        IntermediateLayerGetter(backbone, {"layer4": "out"}),
        randomise_batch_norm(fcn.FCNHead(2048, 21)),
    )
    arguments = {"backbone": "resnet50", "width": 1, "output_stride": output_stride}
    ours = build_model("fcn", arguments, num_classes=21)
    copy_in_order(theirs, ours)
    images = random_images(1, 65, 97)
    logits = theirs.classifier(theirs.eval().backbone(images)["out"])
    expected = interpolate_by_hand(logits, 1 / output_stride, (65, 97))
    torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_cascade_equals_torchvisions_bottlenecks_in_a_row(
    resnet50_state: dict[str, Tensor],
) -> None:
    torch.manual_seed(0)
    backbone = torchvision_resnet50(resnet50_state, (False, False, True), (2, 4, 2))
    # block5 and block6 at rates 4 and 8, times the unit rates (1, 2, 1).
    blocks = [Bottleneck(2048, 512, dilation=rate) for rate in (4, 8, 4, 8, 16, 8)]
    classifier = nn.Conv2d(2048, 21, kernel_size=1)
    stages = OrderedDict(backbone.named_children())
    del stages["avgpool"]
    theirs = nn.Sequential(*stages.values(), *map(randomise_batch_norm, blocks), classifier)
    ours = build_model(
        "cascade",
        {
            "backbone": "resnet50",
            "width": 1,
            "output_stride": 16,
            "cascaded_blocks": 2,
            "multi_grid": (1, 2, 1),
        },
        num_classes=21,
    )
    copy_in_order(theirs, ours)
    images = random_images(1, 65, 97)
    expected = interpolate_by_hand(theirs.eval()(images), 1 / 16, (65, 97))
    torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_encoder_decoder_equals_its_definition_over_torchvisions_resnet() -> None:
    model: Any = small_model("encoder_decoder", width=1.0, output_stride=32)
    resnet = get_model("resnet18", weights=None).eval()
    resnet.load_state_dict(model.backbone.state_dict(), strict=False)
    stages = {f"layer{i}": f"c{i + 1}" for i in range(1, 5)}
    images = random_images(1, 65, 97)
    c = IntermediateLayerGetter(resnet, stages)(images)

    x = model.merges[3](model.laterals[3](c["c5"]))
    for i, name in [(2, "c4"), (1, "c3"), (0, "c2")]:
        up = interpolate_by_hand(x, 1 / 2, c[name].shape[-2:])
        x = model.merges[i](up + model.laterals[i](c[name]))
    assert x.shape[-2:] == (17, 25)
    expected = interpolate_by_hand(model.classifier(x), 1 / 4, (65, 97))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [50, 101])
def test_parameter_counts_follow_from_torchvisions_published_ones(depth: int) -> None:
    common = {"backbone": f"resnet{depth}", "width": 1.0, "output_stride": 8}
    auxiliary = sum(p.numel() for p in fcn.FCNHead(1024, 21).parameters())
    extra_convolution = 256 * 256 * 9 + 2 * 256  # after torchvision's ASPP, not the paper's

    model = build_on_meta("fcn", **common)
    assert count_parameters(model) == published(f"fcn_resnet{depth}") - auxiliary

    model = build_on_meta("aspp", **common, head_channels=256, atrous_rates=(12, 24, 36))
    theirs = published(f"deeplabv3_resnet{depth}")
    assert count_parameters(model) == theirs - auxiliary - extra_convolution


def published(name: str) -> int:
    weights: Any = get_model_weights(name)
    return int(weights.DEFAULT.meta["num_params"])


# Pyramid pooling


def average_cells(features: np.ndarray, bins: int) -> np.ndarray:
    """Average each cell, (N, C, H, W) -> (N, C, bins, bins)."""
    height, width = features.shape[-2:]
    pooled = np.empty((*features.shape[:2], bins, bins), dtype=features.dtype)
    for i, j in np.ndindex(bins, bins):
        rows = slice(i * height // bins, -(-(i + 1) * height // bins))
        columns = slice(j * width // bins, -(-(j + 1) * width // bins))
        pooled[..., i, j] = features[..., rows, columns].mean(axis=(-2, -1))
    return pooled


@pytest.mark.parametrize("size", [(7, 10), (12, 6), (6, 9), (4, 2), (1, 1)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_adaptive_average_pool_equals_its_definition(size: tuple[int, int], bins: int) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = torch.from_numpy(average_cells(x.numpy(), bins))
    torch.testing.assert_close(adaptive_average_pool(x, bins), expected)
    torch.testing.assert_close(nn.AdaptiveAvgPool2d(bins)(x), expected)


@pytest.mark.parametrize("size", [(7, 10), (12, 6), (6, 9), (4, 2), (1, 1)])
@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_adaptive_max_pool_equals_torchs(size: tuple[int, int], bins: int) -> None:
    """Compare values and gradients; no two positions have the same value."""
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), requires_grad=True)
    results = []
    for pool in (nn.AdaptiveMaxPool2d(bins), lambda x: adaptive_max_pool(x, bins)):
        pooled = pool(x)
        weights = torch.arange(pooled.numel(), dtype=torch.float32).view_as(pooled)
        results.append((pooled, *torch.autograd.grad((pooled * weights).sum(), x)))
    torch.testing.assert_close(results[0], results[1])


@torch.no_grad()
def test_psp_with_max_pooling() -> None:
    average, maximum = (small_model("psp", bins=(1, 3), pooling=p) for p in ("average", "max"))
    maximum.load_state_dict(average.state_dict())
    images = random_images(2, 97, 145)
    assert (maximum(images) - average(images)).abs().max() > 0.01
    features = [maximum.backbone(images)[-1]]
    for reduce, bins in zip(maximum.reductions, (1, 3), strict=True):
        pooled = reduce(F.adaptive_max_pool2d(features[0], bins))
        features.append(F.interpolate(pooled, size=features[0].shape[-2:], mode="bilinear"))
    torch.testing.assert_close(
        maximum.logits(images), maximum.classifier(torch.cat(features, dim=1))
    )


@torch.no_grad()
def test_psp_supervises_the_third_stage() -> None:
    model = small_model("psp", auxiliary_weight=0.4)
    images = random_images(2, 65, 97)
    (_, logits), (weight, auxiliary) = model.training_logits(images)
    assert weight == 0.4
    expected = model.auxiliary(model.backbone(images)[2])
    torch.testing.assert_close(auxiliary, expected)
    assert auxiliary.shape[:2] == (2, NUM_CLASSES) and auxiliary.std() > 1e-3

    plain = small_model("psp")
    assert len(plain.training_logits(images)) == 1
    kept = {key: value for key, value in model.state_dict().items() if key[:9] != "auxiliary"}
    plain.load_state_dict(kept)
    torch.testing.assert_close(plain(images), model(images))
    torch.testing.assert_close(plain.logits(images), logits)


@pytest.mark.parametrize("size", [(97, 145), (65, 80)])
@torch.no_grad()
def test_psp_equals_pooling_cell_by_cell(size: tuple[int, int]) -> None:
    model: Any = small_model("psp", bins=(1, 2, 3, 6))
    images = random_images(2, *size)
    features = model.backbone(images)[-1]
    context = [features]
    for reduce, bins in zip(model.reductions, (1, 2, 3, 6), strict=True):
        pooled = reduce(torch.from_numpy(average_cells(features.numpy(), bins)))
        # "the dimension ... to 1/N of the original one if the level size of pyramid is N"
        assert pooled.shape[1] == features.shape[1] // 4
        context.append(F.interpolate(pooled, size=features.shape[-2:], mode="bilinear"))
    logits = model.classifier(torch.cat(context, dim=1))
    expected = interpolate_by_hand(logits, 1 / 16, size)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


def test_psp_adds_to_the_fcn_what_the_paper_says() -> None:
    """Check PSPNet on ResNet-50: four 1x1 convolutions to 512, then 3x3 on 4096 channels."""
    common = {"backbone": "resnet50", "width": 1.0, "output_stride": 8}
    model: Any = build_on_meta("psp", **common, head_channels=512)
    levels = 4 * (2048 * 512 + 2 * 512)
    head = 4096 * 512 * 9 + 2 * 512 + (512 + 1) * 21
    assert count_parameters(model) == count_parameters(model.backbone) + levels + head


@torch.no_grad()
def test_psp_without_dimension_reduction_is_global_pooling() -> None:
    """Check B1 of PSPNet's Table 1: the pooled features themselves stand beside the map."""
    model: Any = small_model("psp", bins=(1,), dimension_reduction=False)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {
        "backbone",
        "classifier",
    }
    images = random_images(2, 97, 145)
    features = model.backbone(images)[-1]
    pooled = features.mean(dim=(2, 3), keepdim=True).expand_as(features)
    expected = model.classifier(torch.cat([features, pooled], dim=1))
    torch.testing.assert_close(model.logits(images), expected)


@pytest.mark.parametrize(
    ("row", "levels", "head"),
    [
        ("psp_b1_max", 0, 2 * 2048),
        ("psp_b1_average", 0, 2 * 2048),
        ("psp_b1236_max", 0, 5 * 2048),
        ("psp_b1236_average", 0, 5 * 2048),
        ("psp_b1236_max_dr", 4 * (2048 * 512 + 2 * 512), 2 * 2048),
        ("psp_b1236_average_dr", 4 * (2048 * 512 + 2 * 512), 2 * 2048),
    ],
)
def test_psp_rows_reduce_dimensions_only_where_the_paper_does(
    row: str, levels: int, head: int
) -> None:
    """Check that rows of PSPNet's Table 1 have 1x1 convolutions only if they end in DR."""
    params = load_params(COMMITTED)
    (citation,) = params.citations(row)
    assert citation.row["variant"].endswith("-DR") == bool(levels)
    arguments = params.experiment("voc2012", row).arguments
    model: Any = build_on_meta("psp", **arguments)
    auxiliary = count_parameters(model.auxiliary)
    classifier = head * 512 * 9 + 2 * 512 + (512 + 1) * 21
    expected = count_parameters(model.backbone) + auxiliary + levels + classifier
    assert count_parameters(model) == expected


# Image pyramid


@torch.no_grad()
def logits_by_hand(model: Any, images: Tensor, scales: Sequence[float]) -> list[Tensor]:
    """Compute logits at every scale, at the positions of the last scale's."""
    sides = [[round((side - 1) * scale) + 1 for side in images.shape[-2:]] for scale in scales]
    inputs = [
        interpolate_by_hand(images, 1 / scale, size)
        for scale, size in zip(scales, sides, strict=True)
    ]
    logits = [model.classifier(model.backbone(x)[-1]) for x in inputs]
    return [
        interpolate_by_hand(x, scale, logits[-1].shape[-2:])
        for scale, x in zip(scales, logits, strict=True)
    ]


@pytest.mark.parametrize("scales", [(0.5, 0.75, 1.0), (1.5, 1.0), (1.0,)])
@pytest.mark.parametrize("fusion", ["max", "mean"])
@torch.no_grad()
def test_image_pyramid_fuses_passes_made_by_hand(fusion: str, scales: tuple[float, ...]) -> None:
    model, images = (
        small_model("image_pyramid", fusion=fusion, scales=scales),
        random_images(2, 65, 97),
    )
    logits = np.stack([x.numpy() for x in logits_by_hand(model, images, scales)])
    fused = torch.from_numpy(logits.max(axis=0) if fusion == "max" else logits.mean(axis=0))
    expected = interpolate_by_hand(fused, 1 / 16, (65, 97))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)
    if len(scales) > 1:
        single = interpolate_by_hand(torch.from_numpy(logits[-1]), 1 / 16, (65, 97))
        assert (expected - single).abs().max() > 0.01


@torch.no_grad()
def test_image_pyramid_at_one_scale_is_the_fcn() -> None:
    fully_convolutional = small_model("fcn", width=1.0)
    model = small_model("image_pyramid", width=1.0, head_channels=128, scales=(1.0,))
    copy_in_order(fully_convolutional, model)
    images = random_images(1, 65, 97)
    torch.testing.assert_close(model(images), fully_convolutional(images))


@torch.no_grad()
def test_constant_attention_is_the_mean() -> None:
    model: Any = small_model("image_pyramid", fusion="attention")
    mean = small_model("image_pyramid", fusion="mean")
    mean.load_state_dict(model.state_dict(), strict=False)
    nn.init.zeros_(model.attention[-1].weight)
    nn.init.constant_(model.attention[-1].bias, 3.0)
    images = random_images(2, 65, 97)
    torch.testing.assert_close(model(images), mean(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chosen", [0, 1, 2])
@torch.no_grad()
def test_attention_may_choose_one_scale(chosen: int) -> None:
    model: Any = small_model("image_pyramid", fusion="attention")
    nn.init.zeros_(model.attention[-1].weight)
    model.attention[-1].bias.copy_(100.0 * F.one_hot(torch.tensor(chosen), 3))
    images = random_images(2, 65, 97)
    logits = logits_by_hand(model, images, (0.5, 0.75, 1.0))[chosen]
    expected = interpolate_by_hand(logits, 1 / 16, (65, 97))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_attention_weights_sum_to_one_and_vary() -> None:
    model: Any = small_model("image_pyramid", fusion="attention")
    images = random_images(2, 65, 97)
    mean = small_model("image_pyramid", fusion="mean")
    mean.load_state_dict(model.state_dict(), strict=False)
    assert (model(images) - mean(images)).abs().max() > 0.01
    # Logits that agree at every scale and place are their own weighted sum.
    nn.init.zeros_(model.classifier[-1].weight)
    expected = model.classifier[-1].bias[None, :, None, None].expand(2, -1, 65, 97)
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize("fusion", ["max", "mean", "attention"])
@torch.no_grad()
def test_image_pyramid_supervises_every_scale(fusion: str) -> None:
    """A loss on the fused map and on each scale's own (Chen et al., CVPR 2016, Section 3.3)."""
    model: Any = small_model("image_pyramid", fusion=fusion)
    images = random_images(2, 65, 97)
    scales = logits_by_hand(model, images, (0.5, 0.75, 1.0))
    weights, logits = zip(*model.training_logits(images), strict=True)
    assert weights == (1, 1, 1, 1)
    expected = [model.logits(images), *scales]
    torch.testing.assert_close(list(logits), expected, rtol=1e-4, atol=1e-4)
    fused_alone = small_model("image_pyramid", fusion=fusion, supervise_scales=False)
    ((weight, fused),) = fused_alone.training_logits(images)
    assert weight == 1
    torch.testing.assert_close(fused, fused_alone.logits(images))


@pytest.mark.parametrize("scales", [(), (1.0, 0.5)])
def test_image_pyramid_ends_at_full_size(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"scales \[.*\] must end with 1.0"):
        small_model("image_pyramid", scales=scales)
