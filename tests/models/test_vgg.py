"""Tests of VGG-16 and its architectures against torchvision and the papers' numbers."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from small_networks import (
    build_on_meta,
    copy_in_order,
    count_positions,
    interpolate_by_hand,
    random_images,
    small_model,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model

from deeplab_bench.models import build_model, count_parameters
from deeplab_bench.models.multi_scale import rescale
from deeplab_bench.models.vgg import VGG16

WIDTHS = {"vgg16": 0.125, "resnet18": 0.25}
SMALL: dict[str, Any] = {"backbone": "vgg16", "output_stride": 8, "width": 0.125}


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def small_vgg(output_stride: Any, **arguments: Any) -> VGG16:
    torch.manual_seed(0)
    settings = {"kernel_size": 3, "rates": (1,), "channels": 8, "width": 0.25, **arguments}
    model = VGG16(output_stride=output_stride, **settings).eval()
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(p, -0.1, 0.1)
    return model


def pool5(model: VGG16, images: Tensor) -> Tensor:
    x: Tensor = model.features(images)
    return x


# The backbone


def test_torchvision_weights_load_by_name() -> None:
    with torch.device("meta"):
        theirs = get_model("vgg16", weights=None).features
        ours = VGG16(output_stride=8, kernel_size=3, rates=(12,), channels=1024).features
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes


def test_output_stride_32_is_torchvisions_classification_network() -> None:
    with torch.device("meta"):
        theirs = get_model("vgg16", weights=None).features
        ours = VGG16(output_stride=32, kernel_size=7, rates=(1,), channels=8).features
    theirs = theirs.to_empty(device="cpu")
    torch.manual_seed(0)
    for p in theirs.parameters():
        nn.init.normal_(p, std=0.05 if p.ndim == 1 else (2 / p[0].numel()) ** 0.5)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    images = random_images(1, 64, 96)
    torch.testing.assert_close(ours(images), theirs(images))


def test_deeplab_form_equals_its_layers_written_out() -> None:
    """Check 3x3 pools, the last two without stride, conv5 at rate 2, and fc6 at its own rate."""
    model, images = small_vgg(8, kernel_size=3, rates=(4,)), random_images(2, 65, 97)

    def stage(channels: list[int], rate: int, stride: int) -> list[nn.Module]:
        layers: list[nn.Module] = []
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 3, padding=rate, dilation=rate), nn.ReLU()]
        return [*layers, nn.MaxPool2d(3, stride, padding=1)]

    by_hand = nn.Sequential(
        *stage([3, 16, 16], 1, 2),
        *stage([16, 32, 32], 1, 2),
        *stage([32, 64, 64, 64], 1, 2),
        *stage([64, 128, 128, 128], 1, 1),
        *stage([128, 128, 128, 128], 2, 1),
        nn.Conv2d(128, 8, 3, padding=4, dilation=4),
        nn.ReLU(),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
    )
    copy_in_order(model, by_hand)
    (*pools, fc7), expected = model(images), by_hand(images)
    torch.testing.assert_close(fc7, expected)
    assert expected.std() > 0.01
    assert [x.shape[-2:] for x in pools] == [(33, 49), (17, 25), (9, 13), (9, 13)]


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(65, 97), (50, 71), (64, 64), (5, 1)])
def test_every_map_has_the_stride_and_channels_it_states(
    output_stride: int, size: tuple[int, int]
) -> None:
    model = small_vgg(output_stride, rates=(1, 2))
    assert model.stage_strides == [min(s, output_stride) for s in (2, 4, 8, 16, 32, 32)]
    features = model(random_images(1, *size))
    for x, channels, stride in zip(
        features, model.stage_channels, model.stage_strides, strict=True
    ):
        expected = count_positions(size, output_stride, stride)
        if output_stride == 32:  # 2x2 pools
            expected = tuple(math.ceil(side / 32) * 32 // stride for side in size)
        assert x.shape == (1, channels, *expected)


def test_atrous_convolutions_subsampled_are_the_strided_ones() -> None:
    """Compare output strides 8 and 16: their 3x3 pools differ only in the stride."""
    strided, atrous = small_vgg(16).double(), small_vgg(8).double()
    atrous.load_state_dict(strided.state_dict())
    images = random_images(1, 97, 129).double()
    # Compare conv5: pool5 of the atrous network sees positions that the strided network skips.
    strided.features[-1] = atrous.features[-1] = nn.Identity()
    coarse, dense = pool5(strided, images), pool5(atrous, images)
    torch.testing.assert_close(dense[..., ::2, ::2], coarse)
    assert coarse.std() > 0.01


@pytest.mark.parametrize(("kernel_size", "rate"), [(7, 4), (4, 4), (4, 8), (3, 12), (4, 1), (2, 3)])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_fc6_is_centred_and_keeps_the_resolution(kernel_size: int, rate: int) -> None:
    """Check that even kernels at odd rates reach one position further down and right."""
    model = small_vgg(8, kernel_size=kernel_size, rates=(rate,))
    fc6: Any = model.get_submodule("fully_connected.0.fc6")
    nn.init.ones_(fc6.weight)
    nn.init.zeros_(fc6.bias)
    x = torch.zeros(1, 128, 61, 63)
    x[0, 0, 30, 31] = 1
    (response,) = fc6(x)[:, 0]
    assert response.shape == (61, 63)
    reach = (kernel_size - 1) * rate
    offsets = [30 + reach // 2 - k * rate for k in reversed(range(kernel_size))]
    assert response.nonzero()[:, 0].unique().tolist() == offsets
    assert response.nonzero()[:, 1].unique().tolist() == [o + 1 for o in offsets]


def test_batch_norm_follows_every_convolution() -> None:
    layers = list(small_vgg(8, batch_norm=True).modules())
    after = [b for a, b in pairwise(layers) if isinstance(a, nn.Conv2d)]
    assert [type(m) for m in after] == [nn.BatchNorm2d] * 15
    assert not any(isinstance(m, nn.BatchNorm2d) for m in small_vgg(8).modules())


def test_dropout_is_half_after_fc6_and_fc7() -> None:
    layers = small_vgg(8).get_submodule("fully_connected.0")
    names = [
        name for name, m in layers.named_children() if isinstance(m, nn.Dropout) and m.p == 0.5
    ]
    assert names == ["drop6", "drop7"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 64}, "output_stride 64 of vgg16 is not one of 8, 16, 32"),
        ({"width": 0.1}, "width 0.1 gives 6 channels in conv1: at least 8 are needed"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_vgg(**{"output_stride": 8, **arguments})


# LargeFOV and its variants


@pytest.mark.parametrize(
    ("settings", "fov", "millions"),
    [
        ({"kernel_size": 7, "atrous_rate": 4, "channels": 4096}, 224, 134.3),
        ({"kernel_size": 4, "atrous_rate": 4, "channels": 4096}, 128, 65.1),
        ({"kernel_size": 4, "atrous_rate": 8, "channels": 4096}, 224, 65.1),
        ({}, 224, 20.5),
    ],
)
def test_field_of_view_and_parameters_are_those_of_deeplabv2_table_1(
    settings: dict[str, int], fov: int, millions: float
) -> None:
    model = build_on_meta("largefov", backbone="vgg16", width=1.0, output_stride=8, **settings)
    assert abs(count_parameters(model) / 1e6 - millions) < 0.1
    fc6 = model.backbone.fully_connected[0].fc6
    assert (fc6.kernel_size[0] - 1) * fc6.dilation[0] * 8 + 32 == fov


def test_classifiers_start_near_zero() -> None:
    model = small_model("aspp_sum", width=1.0)
    for conv in model.classifiers:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not conv.bias.any()


def test_side_features_classify_image_and_four_pools_beside_fc7() -> None:
    """Check DeepLab-MSc, with 5 x 128 more channels, against its layers written out."""
    model = small_model("largefov", **SMALL, channels=8, atrous_rate=2, multi_scale_features=True)
    images = random_images(2, 65, 97)
    *pools, fc7 = model.backbone(images)
    sides = []
    for x, side, stride in zip([images, *pools], model.sides, (8, 4, 2, 1, 1), strict=True):
        first, second = side[0], side[2]
        x = F.conv2d(x, first.weight, first.bias, stride=stride, padding=1).relu()
        sides.append(F.conv2d(x, second.weight, second.bias).relu())
        assert sides[-1].shape == (2, 128, 9, 13)
    (classify,) = model.classifiers
    assert classify.in_channels == 8 + 640
    expected = classify(torch.cat([fc7, *sides], dim=1))
    torch.testing.assert_close(model.logits(images), expected)


def test_side_features_need_positions_on_the_first_pixel() -> None:
    with pytest.raises(
        ValueError, match="multi_scale_features needs output_stride 8 or 16, not 32"
    ):
        small_model("largefov", **SMALL | {"output_stride": 32}, multi_scale_features=True)


@pytest.mark.parametrize("architecture", ["largefov", "aspp_sum"])
@pytest.mark.parametrize("backbone", ["resnet18", "vgg16"])
def test_the_heads_begin_with_the_given_deviation(architecture: str, backbone: str) -> None:
    usual = small_model(architecture, backbone=backbone, output_stride=8)
    large = small_model(architecture, backbone=backbone, output_stride=8, head_std=0.1)
    for model, std in ((usual, 0.01), (large, 0.1)):
        weights = torch.cat([classifier.weight.flatten() for classifier in model.classifiers])
        assert weights.std().item() == pytest.approx(std, rel=0.1)


def test_side_features_of_every_scale_have_the_size_of_fc7() -> None:
    """Also where a rescaled image, here of 79 pixels, does not end on the grid."""
    model = small_model(
        "largefov", **SMALL, channels=8, multi_scale_features=True, scales=(0.75, 1.0)
    )
    assert model.logits(random_images(1, 65, 105)).shape[-2:] == (9, 14)


def test_the_released_largefov_averages_pool5() -> None:
    """Check pool5a of train.prototxt: AVE, kernel_size 3, stride 1, pad 1, after pool5.

    Caffe divides by 9 at the border, too.
    """
    model = small_model("largefov", **SMALL, channels=8, atrous_rate=2, average_pool5=True)
    images = random_images(2, 65, 97)
    plain = small_model("largefov", **SMALL, channels=8, atrous_rate=2)
    plain.load_state_dict(model.state_dict())
    features = plain.backbone.features(images)
    padded = F.pad(features, (1, 1, 1, 1))
    height, width = features.shape[-2:]
    shifted = [padded[..., y : y + height, x : x + width] for y in range(3) for x in range(3)]
    fc7 = model.backbone.fully_connected[0](torch.stack(shifted).mean(dim=0))
    (classify,) = model.classifiers
    torch.testing.assert_close(model.logits(images), classify(fc7))
    assert not torch.allclose(model.logits(images), plain.logits(images), atol=1e-5)


@pytest.mark.parametrize("architecture", ["largefov", "aspp_sum"])
def test_only_vgg_has_a_pool5_to_average(architecture: str) -> None:
    with pytest.raises(ValueError, match="average_pool5 needs backbone vgg16, but the backbone is"):
        small_model(architecture, average_pool5=True)


def test_side_features_are_vggs() -> None:
    with pytest.raises(
        ValueError, match="multi_scale_features needs backbone vgg16, but the backbone is resnet18"
    ):
        small_model("largefov", multi_scale_features=True)


def test_largefov_on_a_resnet_is_one_convolution() -> None:
    """Check that with kernel_size 1 it is the plain network."""
    for kernel_size, rate in [(3, 12), (1, 1)]:
        model = small_model("largefov", output_stride=8, kernel_size=kernel_size, atrous_rate=rate)
        images = random_images(2, 65, 97)
        (conv,) = model.classifiers
        expected = F.conv2d(
            model.backbone(images)[-1],
            conv.weight,
            conv.bias,
            padding=rate * (kernel_size // 2),
            dilation=rate,
        )
        assert conv.weight.shape[-1] == kernel_size
        torch.testing.assert_close(model.logits(images), expected)


# Summed ASPP


@pytest.mark.parametrize("rates", [(2, 4, 8, 12), (6, 12, 18, 24)])
def test_aspp_on_vgg_sums_the_logits_of_largefovs(rates: tuple[int, ...]) -> None:
    """Check that each branch is a LargeFOV of its rate (DeepLabv2, Figure 7)."""
    model = small_model("aspp_sum", **SMALL, channels=8, atrous_rates=rates)
    images, total = random_images(2, 65, 97), torch.zeros(())
    for index, rate in enumerate(rates):
        branch = small_model("largefov", **SMALL, channels=8, atrous_rate=rate)
        branch.backbone.features.load_state_dict(model.backbone.features.state_dict())
        copy_in_order(model.backbone.fully_connected[index], branch.backbone.fully_connected[0])
        copy_in_order(model.classifiers[index], branch.classifiers[0])
        total = total + branch.logits(images)
    torch.testing.assert_close(model.logits(images), total)
    assert total.std() > 1e-3


def test_aspp_on_resnet_sums_convolutions_of_the_last_map() -> None:
    rates = (6, 12, 18, 24)
    model = small_model("aspp_sum", output_stride=8, atrous_rates=rates)
    assert [type(m) for m in model.classifiers] == [nn.Conv2d] * 4
    images = random_images(2, 65, 97)
    features = model.backbone(images)[-1]
    expected = sum(
        F.conv2d(features, conv.weight, conv.bias, padding=rate, dilation=rate)
        for conv, rate in zip(model.classifiers, rates, strict=True)
    )
    torch.testing.assert_close(model.logits(images), expected)


def test_aspp_needs_a_rate() -> None:
    with pytest.raises(ValueError, match=r"atrous_rates \[\] gives no branch"):
        small_model("aspp_sum", atrous_rates=())


@pytest.mark.parametrize(
    ("architecture", "overrides"),
    [
        ("aspp_sum", {"output_stride": 8}),
        ("aspp_sum", {**SMALL, "channels": 8}),
        ("largefov", {**SMALL, "channels": 8, "atrous_rate": 2}),
    ],
)
def test_several_scales_give_the_largest_logit(
    architecture: str, overrides: dict[str, Any]
) -> None:
    scales = (0.5, 0.75, 1.0)
    single = small_model(architecture, **overrides)
    model = small_model(architecture, **overrides, scales=scales)
    model.load_state_dict(single.state_dict())
    images = random_images(2, 65, 97)
    maps = [single.logits(rescale(images, scale)) for scale in scales]
    assert [x.shape[-2:] for x in maps] == [(5, 7), (7, 10), (9, 13)]
    aligned = [
        interpolate_by_hand(x, scale, (9, 13)) for scale, x in zip(scales, maps, strict=True)
    ]
    torch.testing.assert_close(model.logits(images), torch.stack(aligned).max(dim=0).values)
    assert (model.logits(images) - maps[-1]).abs().max() > 1e-3
    # A loss on the maximum and on every scale, each of weight 1 (DeepLabv2, Section 4.1.2).
    weights, supervised = zip(*model.training_logits(images), strict=True)
    assert weights == (1, 1, 1, 1)
    torch.testing.assert_close(list(supervised), [model.logits(images), *aligned])
    fused_alone = small_model(architecture, **overrides, scales=scales, supervise_scales=False)
    assert len(fused_alone.training_logits(images)) == len(single.training_logits(images)) == 1


@pytest.mark.parametrize("architecture", ["largefov", "aspp_sum"])
def test_scales_end_with_the_image_itself(architecture: str) -> None:
    with pytest.raises(ValueError, match=r"scales \[1.0, 0.5\] must end with 1.0"):
        small_model(architecture, scales=(1.0, 0.5))


# FCN


def test_fcn_on_vgg_has_the_published_parameters() -> None:
    model = build_on_meta("fcn", backbone="vgg16", width=1.0, output_stride=32)
    assert abs(count_parameters(model) / 1e6 - 134) < 0.5
    with torch.device("meta"):
        theirs = count_parameters(get_model("vgg16", weights=None, num_classes=21))
    assert count_parameters(model) == theirs
    skips = build_on_meta("fcn", backbone="vgg16", width=1.0, output_stride=32, skips=2)
    assert count_parameters(skips) == theirs + (512 + 1) * 21 + (256 + 1) * 21


def test_fcn_on_vgg_is_the_classifier_at_every_window() -> None:
    """Check 224 x 224 pixels: the centre of fc6 has the same input as the first linear layer."""
    torch.manual_seed(0)
    arguments = {"backbone": "vgg16", "width": 0.125, "output_stride": 32}
    model = build_model("fcn", arguments, num_classes=10).eval()
    pooled: Any = model.backbone.features(random_images(1, 224, 224))  # type: ignore[operator]
    fc6: Any = model.get_submodule("backbone.fully_connected.0.fc6")
    linear = F.linear(pooled.flatten(1), fc6.weight.flatten(1), fc6.bias)
    torch.testing.assert_close(fc6(pooled)[..., 3, 3], linear, rtol=1e-4, atol=1e-4)


def fcn_logits_by_hand(
    features: list[Tensor], deepest: Callable[[Tensor], Tensor], skips: Any, first: float
) -> Tensor:
    """Compute the logits of FCN-32s, FCN-16s or FCN-8s, for 0, 1 or 2 layers in ``skips``.

    ``first`` is where the first position of a map lies on the next coarser map.
    """
    logits = deepest(features[-1])
    if len(skips) > 0:
        at_16 = skips[0](features[-2])
        logits = at_16 + interpolate_by_hand(logits, 1 / 2, at_16.shape[-2:], first)
    if len(skips) > 1:
        at_8 = skips[1](features[-3])
        logits = at_8 + interpolate_by_hand(logits, 1 / 2, at_8.shape[-2:], first)
    return logits


@pytest.mark.parametrize("skips", [0, 1, 2])
@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
@pytest.mark.parametrize("size", [(65, 97), (64, 50)])
def test_fcn_skips_add_logits_step_by_step(
    backbone: str, skips: int, size: tuple[int, int]
) -> None:
    model = small_model(
        "fcn", backbone=backbone, width=WIDTHS[backbone], output_stride=32, skips=skips
    )
    assert len(model.skips) == skips
    images = random_images(2, *size)
    first = 0.0 if backbone == "resnet18" else -0.25
    expected = fcn_logits_by_hand(model.backbone(images), model.classifier, model.skips, first)
    stride = {0: 32, 1: 16, 2: 8}[skips]
    if backbone == "resnet18":
        assert expected.shape[-2:] == count_positions(size, 32, stride)
    else:  # 2x2 pools
        assert expected.shape[-2:] == tuple(math.ceil(side / 32) * 32 // stride for side in size)
    torch.testing.assert_close(model.logits(images), expected)


@pytest.mark.parametrize("backbone", ["vgg16", "resnet18"])
def test_fcn_skips_start_without_effect(backbone: str) -> None:
    """FCN, Section 4.2: the net starts with the predictions of the coarser one."""
    settings = {"backbone": backbone, "width": WIDTHS[backbone], "output_stride": 32}
    torch.manual_seed(0)
    model: Any = build_model("fcn", {**settings, "skips": 2}, num_classes=5).eval()
    assert not any(p.any() for p in model.skips.parameters())
    if backbone == "vgg16":
        assert not any(p.any() for p in model.classifier.parameters())


@pytest.mark.parametrize(
    ("backbone", "channels"), [("vgg16", [512, 256]), ("resnet50", [1024, 512])]
)
def test_fcn_classifies_pool4_and_pool3(backbone: str, channels: list[int]) -> None:
    model = build_on_meta("fcn", backbone=backbone, width=1.0, output_stride=32, skips=2)
    assert [conv.in_channels for conv in model.skips] == channels


def test_fcn_of_vgg_is_atrous_at_a_smaller_output_stride() -> None:
    """Check that fc6 keeps its field of view, 7 x 32 pixels."""
    for output_stride, rate in [(32, 1), (16, 2), (8, 4)]:
        model = small_model("fcn", backbone="vgg16", output_stride=output_stride, width=0.125)
        fc6: Any = model.get_submodule("backbone.fully_connected.0.fc6")
        assert fc6.kernel_size == (7, 7) and fc6.dilation == (rate, rate)
