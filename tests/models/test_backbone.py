"""Tests of the atrous ResNet against torchvision's ResNet and the text of DeepLabv3."""

import math
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_networks import count_positions, randomise_batch_norm
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter

from deeplab_bench.models.backbone import DEPTHS, ResNet
from deeplab_bench.models.backbones import build_backbone

# Parameters of the classification networks, as torchvision publishes them.
PUBLISHED_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
}
# torchvision's argument for an output stride: which of layer2 to layer4 are dilated instead.
DILATED = {32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: for maps this small, several are slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def resnet50_state() -> dict[str, Tensor]:
    return random_torchvision_state("resnet50")


def random_torchvision_state(name: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model: nn.Module = get_model(name, weights=None)
    randomise_batch_norm(model)
    return model.state_dict()


def torchvision_features(
    name: str, state: dict[str, Tensor], images: Tensor, **arguments: Any
) -> list[Tensor]:
    with torch.device("meta"):
        model = get_model(name, weights=None, **arguments)
    model.load_state_dict(state, assign=True)
    stages = {f"layer{i}": f"layer{i}" for i in range(1, 5)}
    return list(IntermediateLayerGetter(model.eval(), stages)(images).values())


def our_features(
    name: Any, state: dict[str, Tensor], images: Tensor, output_stride: Any
) -> list[Tensor]:
    with torch.device("meta"):
        model = ResNet(name, output_stride=output_stride)
    own = {key: value for key, value in state.items() if not key.startswith("fc.")}
    model.load_state_dict(own, assign=True)
    features: list[Tensor] = model.eval()(images)
    return features


def on_meta(name: Any, **arguments: Any) -> ResNet:
    with torch.device("meta"):
        return ResNet(name, **{"output_stride": 32, **arguments})


def geometry(model: nn.Module) -> dict[str, tuple[Any, ...]]:
    """List the settings of the layers by name, without their weights."""
    layers: dict[str, tuple[Any, ...]] = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            layers[name] = (*m.weight.shape, m.stride, m.padding, m.dilation, m.groups, m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            layers[name] = (m.num_features, m.eps, m.momentum, m.affine, m.track_running_stats)
        elif isinstance(m, nn.MaxPool2d):
            layers[name] = (m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode)
    return layers


def rates_of_units(model: ResNet, layer: str) -> list[list[int]]:
    """List the atrous rates of the 3x3 convolutions of every residual unit."""
    units = [
        [m for m in unit.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        for unit in model.get_submodule(layer).children()
    ]
    convs = [conv for unit in units for conv in unit]
    assert all(conv.padding == conv.dilation and len(set(conv.dilation)) == 1 for conv in convs)
    return [[conv.dilation[0] for conv in unit] for unit in units]


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("stride_in", ["first", "last"])
def test_torchvision_weights_load_by_name(name: str, output_stride: int, stride_in: str) -> None:
    with torch.device("meta"):
        theirs = get_model(name, weights=None).state_dict()
    ours = on_meta(name, output_stride=output_stride, stride_in=stride_in).state_dict()
    shapes = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == shapes


@pytest.mark.parametrize(("name", "published"), PUBLISHED_PARAMETERS.items())
def test_parameter_count_is_the_published_one(name: str, published: int) -> None:
    model = on_meta(name)
    classifier = (model.stage_channels[-1] + 1) * 1000
    assert sum(p.numel() for p in model.parameters()) + classifier == published


@pytest.mark.parametrize("name", DEPTHS)
def test_layers_are_torchvisions_at_output_stride_32(name: str) -> None:
    with torch.device("meta"):
        theirs = get_model(name, weights=None)
    assert geometry(on_meta(name)) == geometry(theirs)


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_layers_are_torchvisions_dilated_ones(name: str, output_stride: int) -> None:
    with torch.device("meta"):
        dilated = list(DILATED[output_stride])
        theirs = get_model(name, weights=None, replace_stride_with_dilation=dilated)
    assert geometry(on_meta(name, output_stride=output_stride)) == geometry(theirs)


def test_features_equal_torchvisions_basic_blocks() -> None:
    state, images = random_torchvision_state("resnet18"), torch.randn(2, 3, 65, 97)
    theirs = torchvision_features("resnet18", state, images)
    torch.testing.assert_close(our_features("resnet18", state, images, 32), theirs)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_features_equal_torchvisions_bottlenecks(
    resnet50_state: dict[str, Tensor], output_stride: int
) -> None:
    images, dilated = torch.randn(1, 3, 65, 97), list(DILATED[output_stride])
    theirs = torchvision_features(
        "resnet50", resnet50_state, images, replace_stride_with_dilation=dilated
    )
    ours = our_features("resnet50", resnet50_state, images, output_stride)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(65, 65), (65, 97)])
def test_atrous_features_subsampled_are_the_strided_ones(
    name: Any, output_stride: Any, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    strided = ResNet(name, output_stride=32, width=0.25).double().eval()
    randomise_batch_norm(strided)
    atrous = ResNet(name, output_stride=output_stride, width=0.25).double().eval()
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    steps = [a // b for a, b in zip(strided.stage_strides, atrous.stage_strides, strict=True)]
    assert steps[-1] == 32 // output_stride
    for coarse, dense, step in zip(strided(images), atrous(images), steps, strict=True):
        assert coarse.std() > 0.1
        torch.testing.assert_close(dense[..., ::step, ::step], coarse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("multi_grid", [None, (1, 1, 1), (1, 2, 4)])
def test_strides_in_the_last_units_have_an_exact_atrous_form(
    name: Any, output_stride: Any, multi_grid: tuple[int, ...] | None
) -> None:
    """Check the paper's placement, also with unit rates."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 0.25, "multi_grid": multi_grid, "stride_in": "last"}
    strided = ResNet(name, output_stride=32, **settings).double().eval()
    randomise_batch_norm(strided)
    atrous = ResNet(name, output_stride=output_stride, **settings).double().eval()
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    assert strided.stage_strides == [8, 16, 32, 32]
    for coarse, dense, stride in zip(
        strided(images), atrous(images), strided.stage_strides, strict=True
    ):
        step = max(1, stride // output_stride)
        assert coarse.std() > 0.1
        torch.testing.assert_close(dense[..., ::step, ::step], coarse, rtol=1e-9, atol=1e-9)


def test_strides_in_the_first_units_have_none_with_unit_rates() -> None:
    """Check it: the first convolution of block4 has rate 2, not the 1 of the exact form."""
    torch.manual_seed(0)
    strided = ResNet("resnet50", output_stride=32, width=0.25, multi_grid=(1, 1, 1)).eval()
    atrous = ResNet("resnet50", output_stride=16, width=0.25, multi_grid=(1, 1, 1)).eval()
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 65, 97)
    assert not torch.allclose(atrous(images)[-1][..., ::2, ::2], strided(images)[-1], atol=1e-2)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_cascade_with_strides_in_the_last_units_has_an_exact_atrous_form(name: Any) -> None:
    """Check DeepLabv3, Section 3.2: every block but the last one ends with a stride."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {"width": 0.25, "cascaded_blocks": 2, "stride_in": "last"}
    strided = ResNet(name, output_stride=128, multi_grid=(1, 2, 1), **settings).double().eval()
    randomise_batch_norm(strided)
    atrous = ResNet(name, output_stride=16, multi_grid=(1, 2, 1), **settings).double().eval()
    atrous.load_state_dict(strided.state_dict())
    assert strided.stage_strides == [8, 16, 32, 64, 128, 128]
    assert atrous.stage_strides == [8, 16, 16, 16, 16, 16]
    images = torch.randn(1, 3, 257, 129, dtype=torch.float64)
    coarse, dense = strided(images)[-1], atrous(images)[-1]
    torch.testing.assert_close(dense[..., ::8, ::8], coarse, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(65, 97), (50, 71)])
def test_every_stage_has_the_stride_it_states(output_stride: Any, size: tuple[int, int]) -> None:
    model = on_meta("resnet18", output_stride=output_stride, width=0.25, cascaded_blocks=1)
    assert model.stage_strides == [min(s, output_stride) for s in (4, 8, 16, 32, 32)]
    features = model(torch.empty(2, 3, *size, device="meta"))
    for feature, channels, stride in zip(
        features, model.stage_channels, model.stage_strides, strict=True
    ):
        assert feature.shape == (2, channels, *count_positions(size, output_stride, stride))


@pytest.mark.parametrize(
    ("output_stride", "rates"), [(32, (1, 2, 4)), (16, (2, 4, 8)), (8, (4, 8, 16))]
)
@pytest.mark.parametrize(("name", "convolutions"), [("resnet18", 2), ("resnet50", 1)])
def test_multi_grid_multiplies_the_rate_of_block4(
    name: str, convolutions: int, output_stride: int, rates: tuple[int, ...]
) -> None:
    model = on_meta(name, output_stride=output_stride, multi_grid=(1, 2, 4))
    units = DEPTHS[name][1][-1]
    assert rates_of_units(model, "layer4") == [[r] * convolutions for r in rates[:units]]
    plain = on_meta(name, output_stride=output_stride)
    for layer in ("layer1", "layer2", "layer3"):
        assert rates_of_units(model, layer) == rates_of_units(plain, layer)


@pytest.mark.parametrize(
    ("output_stride", "rates"), [(32, (1, 2, 4, 8)), (16, (2, 4, 8, 16)), (8, (4, 8, 16, 32))]
)
@pytest.mark.parametrize("multi_grid", [(1, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("stride_in", ["first", "last"])
def test_cascade_doubles_the_rate_at_every_block(
    output_stride: int, rates: tuple[int, ...], multi_grid: tuple[int, ...], stride_in: str
) -> None:
    settings = {"multi_grid": multi_grid, "cascaded_blocks": 3, "stride_in": stride_in}
    model = on_meta("resnet50", output_stride=output_stride, **settings)
    blocks = [rates_of_units(model, f"layer{i}") for i in range(4, 8)]
    assert blocks == [[[rate * unit_rate] for unit_rate in multi_grid] for rate in rates]


@pytest.mark.parametrize(
    ("output_stride", "strides", "rates"),
    [
        (256, (32, 64, 128, 256), (1, 1, 1, 1)),
        (128, (32, 64, 128, 128), (1, 1, 1, 2)),
        (64, (32, 64, 64, 64), (1, 1, 2, 4)),
        (32, (32, 32, 32, 32), (1, 2, 4, 8)),
        (16, (16, 16, 16, 16), (2, 4, 8, 16)),
        (8, (8, 8, 8, 8), (4, 8, 16, 32)),
    ],
)
@pytest.mark.parametrize("size", [(321, 513), (50, 71), (5, 1)])
def test_cascaded_blocks_stride_on_to_the_output_stride(
    output_stride: int, strides: tuple[int, ...], rates: tuple[int, ...], size: tuple[int, int]
) -> None:
    """Check DeepLabv3, Figure 3: (a) at 256, (b) at 16; inputs may be smaller than the stride."""
    model = on_meta(
        "resnet50", output_stride=output_stride, multi_grid=(1, 1, 1), cascaded_blocks=3
    )
    assert tuple(model.stage_strides[3:]) == strides
    blocks = [rates_of_units(model, f"layer{i}") for i in range(4, 8)]
    assert blocks == [[[rate]] * 3 for rate in rates]
    features = model.eval()(torch.empty(1, 3, *size, device="meta"))
    for feature, stride in zip(features[3:], strides, strict=True):
        assert feature.shape[-2:] == count_positions(size, output_stride, stride)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_atrous_cascade_subsampled_is_the_strided_one(name: Any) -> None:
    """Load one state dict into both: a network can be evaluated at any output stride."""
    torch.manual_seed(0)
    strided = ResNet(name, output_stride=128, width=0.25, cascaded_blocks=2).double().eval()
    randomise_batch_norm(strided)
    atrous = ResNet(name, output_stride=16, width=0.25, cascaded_blocks=2).double().eval()
    atrous.load_state_dict(strided.state_dict())
    images = torch.randn(1, 3, 257, 129, dtype=torch.float64)
    coarse, dense = strided(images)[-1], atrous(images)[-1]
    assert coarse.shape[-2:] == (3, 2) and dense.shape[-2:] == (17, 9)
    torch.testing.assert_close(dense[..., ::8, ::8], coarse, rtol=1e-9, atol=1e-9)


def test_cascaded_blocks_replicate_block4() -> None:
    model = on_meta("resnet50", output_stride=16, multi_grid=(1, 1, 1), cascaded_blocks=3)
    assert model.stages == [f"layer{i}" for i in range(1, 8)]
    assert model.stage_channels == [256, 512, 1024, 2048, 2048, 2048, 2048]
    unit = {key: p.shape for key, p in model.get_submodule("layer4.1").named_parameters()}
    for name in model.stages[4:]:
        units = model.get_submodule(name).children()
        shapes = [{key: p.shape for key, p in u.named_parameters()} for u in units]
        assert shapes == [unit] * 3


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("width", [0.25, 0.5, 2.0])
def test_width_scales_every_layer(name: str, width: float) -> None:
    plain, scaled = on_meta(name), on_meta(name, width=width)
    assert scaled.stage_channels == [c * width for c in plain.stage_channels]
    for key, parameter in plain.named_parameters():
        expected = list(parameter.shape)
        expected[0] = int(expected[0] * width)
        if parameter.ndim == 4 and key != "conv1.weight":
            expected[1] = int(expected[1] * width)
        assert list(scaled.get_parameter(key).shape) == expected, key


def test_initialisation_is_he_with_fan_out() -> None:
    torch.manual_seed(0)
    model = ResNet("resnet18", output_stride=16, width=0.5, cascaded_blocks=1)
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            expected = math.sqrt(2 / (m.out_channels * math.prod(m.kernel_size)))
            assert m.weight.std().item() == pytest.approx(expected, rel=0.1), name
        elif isinstance(m, nn.BatchNorm2d):
            assert (m.weight == 1).all() and (m.bias == 0).all(), name


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "resnet152",
            {},
            "backbone 'resnet152' is not one of resnet18, resnet34, resnet50, resnet101, "
            "efficientnet_lite0",
        ),
        ("resnet18", {"output_stride": 4}, "output_stride 4 is not one of 8, 16, 32"),
        ("resnet18", {"output_stride": 24}, "24 is not one of 8, 16, 32, 64, 128, 256"),
        (
            "resnet18",
            {"output_stride": 64},
            "output_stride 64 is above 32, the largest of resnet18 with 0 cascaded blocks",
        ),
        (
            "resnet50",
            {"output_stride": 256, "cascaded_blocks": 2},
            "output_stride 256 is above 128, the largest of resnet50 with 2 cascaded",
        ),
        (
            "resnet50",
            {"multi_grid": (1, 2)},
            "multi_grid [1, 2] needs one unit rate for each of the 3 residual units in",
        ),
        (
            "resnet18",
            {"multi_grid": ()},
            "multi_grid [] needs one unit rate for each of the 2 residual units in",
        ),
        (
            "efficientnet_lite0",
            {"multi_grid": (1, 2)},
            "multi_grid [1, 2] needs one unit rate for each of the 3 units in a cascaded block",
        ),
        (
            "efficientnet_lite0",
            {"output_stride": 64},
            "64 is above 32, the largest of efficientnet_lite0 with 0 cascaded blocks",
        ),
        (
            "efficientnet_lite0",
            {"stride_in": "last"},
            "stride_in 'last' is not possible with efficientnet_lite0",
        ),
    ],
)
def test_wrong_arguments_are_refused(name: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)), torch.device("meta"):
        build_backbone(name, **{"output_stride": 32, **arguments})
