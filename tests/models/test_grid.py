"""Tests of where samples lie: ideal label maps, sampled and upsampled, against exact positions."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from small_networks import interpolate_by_hand, small_model
from torch import Tensor
from torch.nn import functional as F

from deeplab_bench.analysis.receptive_field import find_seen_pixels
from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.predict import predict
from deeplab_bench.models.backbone import ResNet
from deeplab_bench.models.backbones import build_backbone
from deeplab_bench.models.efficientnet_lite0 import EfficientNetLite0
from deeplab_bench.models.grid import Grid, sample
from deeplab_bench.models.multi_scale import align, rescale
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.vgg import VGG16
from deeplab_bench.settings.inference import Inference
from deeplab_bench.training.loss import segmentation_loss, subsample

STRIDES = (4, 8, 16, 32)
SIZES = [(513, 513), (375, 500), (65, 65), (50, 71), (97, 33), (64, 96)]
MARGIN = 32  # pixels beyond the image for which there are labels, too


def draw_ellipses(size: tuple[int, int], count: int = 20) -> list[NDArray[np.bool_]]:
    """Draw maps of one ellipse each, on the image and MARGIN pixels at the right and the bottom."""
    random, shorter = np.random.default_rng(0), min(375, *size)
    rows, columns = np.mgrid[: size[0] + MARGIN, : size[1] + MARGIN]
    maps = []
    for _ in range(count):
        (y, x), angle = random.uniform(0.2, 0.8, 2) * size, random.uniform(0, np.pi)
        a, b = random.uniform(0.1, 0.3, 2) * shorter
        along = (rows - y) * np.cos(angle) + (columns - x) * np.sin(angle)
        across = (columns - x) * np.cos(angle) - (rows - y) * np.sin(angle)
        maps.append((along / a) ** 2 + (across / b) ** 2 < 1)
    return maps


def compute_iou(upsampled: list[Tensor], ellipses: list[NDArray[np.bool_]]) -> float:
    """Compute the IoU of the ellipses over all images; the higher logit wins."""
    found = [(x[0, 1] > x[0, 0]).numpy() for x in upsampled]
    pairs = [(f, e[: f.shape[0], : f.shape[1]]) for f, e in zip(found, ellipses, strict=True)]
    union = sum(np.count_nonzero(f | e) for f, e in pairs)
    return sum(np.count_nonzero(f & e) for f, e in pairs) / union


def one_hot(labels: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(np.stack([~labels, labels])[None]).float()


def sample_labels(ellipses: NDArray[np.bool_], size: tuple[int, int], stride: int) -> Tensor:
    """Take the labels at the pixels 0, stride, ..., up to the first at or beyond the last pixel."""
    rows, columns = (range(0, side - 1 + stride, stride) for side in size)
    return one_hot(ellipses[np.ix_(rows, columns)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_ideal_maps_reach_the_iou_of_the_exact_grid(stride: int, size: tuple[int, int]) -> None:
    ellipses = draw_ellipses(size)
    few = [sample_labels(e, size, stride) for e in ellipses]
    ours = [Grid(stride).upsample(x, size) for x in few]
    exact = [interpolate_by_hand(x, 1 / stride, size) for x in few]
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    stretched = [F.interpolate(x, size=size, mode="bilinear") for x in few]
    reached = compute_iou(ours, ellipses)
    assert reached == pytest.approx(compute_iou(exact, ellipses), abs=5e-4)
    if min(size) > 10 * stride:  # several samples fall into every ellipse
        assert reached > compute_iou(stretched, ellipses)


@pytest.mark.parametrize(
    ("stride", "size", "stretched", "exact"),
    [
        (16, (513, 513), 90.1, 92.7),
        (32, (513, 513), 81.8, 86.0),
        (16, (375, 500), 90.2, 92.5),
        (32, (375, 500), 76.8, 85.0),
    ],
)
def test_what_the_exact_grid_gains(
    stride: int, size: tuple[int, int], stretched: float, exact: float
) -> None:
    """The figures are those of another set of ellipses, without and with the exact grid."""
    ellipses = draw_ellipses(size, count=60)
    ours = [Grid(stride).upsample(sample_labels(e, size, stride), size) for e in ellipses]
    before = []
    for e in ellipses:  # without padding, the last position is in the image
        inside = one_hot(e[: size[0], : size[1]])[..., ::stride, ::stride]
        before.append(F.interpolate(inside, size=size, mode="bilinear"))
    found = 100 * np.array([compute_iou(maps, ellipses) for maps in (before, ours)])
    np.testing.assert_allclose(found, [stretched, exact], atol=2)
    assert found[1] - found[0] == pytest.approx(exact - stretched, abs=0.8)


# Where the positions of the backbones lie


BACKBONES = [
    *(("resnet18", stride) for stride in (8, 16, 32)),
    *(("resnet50", stride) for stride in (8, 16, 32, 128)),
    *(("vgg16", stride) for stride in (8, 16, 32)),
    *(("efficientnet_lite0", stride) for stride in (8, 16, 32, 128)),
]


def build_on_meta(name: Any, output_stride: Any) -> ResNet | VGG16 | EfficientNetLite0:
    with torch.device("meta"):
        if name == "vgg16":
            return VGG16(
                output_stride=output_stride, kernel_size=3, rates=(1,), channels=8, width=0.125
            )
        blocks = 2 if output_stride > 32 else 0
        return build_backbone(name, output_stride=output_stride, width=0.25, cascaded_blocks=blocks)


@pytest.mark.parametrize("size", [(2049, 1500), (1024, 1333)])
@pytest.mark.parametrize(("name", "output_stride"), BACKBONES)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_positions_lie_on_the_grid(name: str, output_stride: int, size: tuple[int, int]) -> None:
    """The middle of what a position sees, away from borders, is the position itself."""
    backbone = build_on_meta(name, output_stride).eval()
    for index, stride in enumerate(backbone.stage_strides):
        field = find_seen_pixels(lambda x, i=index: backbone(x)[i], *size)  # type: ignore[misc]
        first = 0.0 if backbone.grid.from_first_pixel else (stride - 1) / 2
        for span, side in ((field.rows, size[0]), (field.columns, size[1])):
            padded = backbone.grid.pad_side(side)
            assert side <= padded < side + output_stride
            if backbone.grid.from_first_pixel:
                assert (len(span) - 1) * stride + 1 == padded
            else:
                assert len(span) * stride == padded
            inner = (span.first > 0) & (span.last < side - 1) & (span.first <= span.last)
            middle = (span.first + span.last)[inner] / 2
            if inner.any():
                assert (middle == first + stride * np.flatnonzero(inner)).all()


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("size", [(50, 71), (65, 97), (1, 40)])
def test_maps_of_different_strides_are_resized_exactly(
    size: tuple[int, int], corners: bool
) -> None:
    """A linear function of the pixel stays itself between the first and the last position."""
    grid = Grid(32, from_first_pixel=corners)
    maps = {}
    for stride in (1, 4, 16, 32):
        first = 0.0 if corners else (stride - 1) / 2
        counts = [(grid.pad_side(side) - corners) // stride + corners for side in size]
        y, x = (first + stride * torch.arange(count, dtype=torch.float64) for count in counts)
        maps[stride] = (3 * y[:, None] + x)[None, None]
    for low, high in ((32, 16), (32, 4), (16, 4), (32, 1)):
        resized = grid.resize_like(maps[low], maps[high])
        edge = 0 if corners else low // high  # there, values are those of the nearest position
        inner = (..., slice(edge, -edge or None), slice(edge, -edge or None))
        torch.testing.assert_close(resized[inner], maps[high][inner])


def test_images_of_the_crops_of_deeplab_are_not_copied() -> None:
    images = torch.zeros(1, 3, 513, 321)
    assert all(Grid(stride).pad(images) is images for stride in (1, 8, 16, 32))
    padded = Grid(16).pad(images[..., :500, :].contiguous(memory_format=torch.channels_last))
    assert padded.shape == (1, 3, 513, 321)
    assert padded.is_contiguous(memory_format=torch.channels_last)


def test_padding_is_the_mean_colour() -> None:
    padded = Grid(8).pad(torch.ones(1, 3, 7, 10))
    assert padded.shape == (1, 3, 9, 17)
    assert padded[..., :7, :10].eq(1).all() and padded.sum() == 3 * 7 * 10


# Several scales


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7, 0.75, 1.25, 1.5, 1.75, 2.0])
@pytest.mark.parametrize("size", [(65, 97), (50, 71), (1, 2)])
def test_rescaled_images_show_the_pixels_between(scale: float, size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = rescale(images, scale)
    plane = F.pad(images, (0, 5, 0, 5))
    expected = interpolate_by_hand(plane, 1 / scale, found.shape[-2:])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for side, scaled in zip(size, found.shape[-2:], strict=True):
        assert (scaled - 2) / scale < side - 1 <= (scaled - 1) / scale or side == 1


def test_scales_of_the_crops_are_those_of_deeplab() -> None:
    """The authors' code scales a crop to (side - 1) * scale + 1."""
    images = torch.zeros(1, 1, 513, 321)
    sizes = [tuple(rescale(images, scale).shape[-2:]) for scale in (0.5, 0.75, 1.25, 1.75)]
    assert sizes == [(257, 161), (385, 241), (641, 401), (897, 561)]


@pytest.mark.parametrize("step", [Fraction(3, 4), Fraction(4, 3), Fraction(2, 7), Fraction(1)])
def test_samples_equal_those_by_hand(step: Fraction) -> None:
    x = torch.rand(1, 2, 9, 14, generator=torch.Generator().manual_seed(0))
    size = [int((side - 1) / step) + 1 for side in x.shape[-2:]]
    expected = interpolate_by_hand(x, float(step), size)
    torch.testing.assert_close(sample(x, step, size), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(375, 500), (65, 65), (50, 71)])
def test_maps_of_all_scales_coincide(size: tuple[int, int], stride: int) -> None:
    """A ramp over the image is the same ramp in the map of every scale, once they are aligned."""
    scales, grid = (0.5, 0.75, 1.25, 1.0), Grid(stride)
    y, x = (torch.arange(grid.pad_side(side), dtype=torch.float64) for side in size)
    images = (3 * y[:, None] + x)[None, None]
    maps = []
    for scale in scales:
        few = grid.pad(rescale(images, scale))[..., ::stride, ::stride]
        maps.append(few)
    for scale, aligned in zip(scales, align(maps, scales), strict=True):
        # Only the last position may lie beyond the rescaled image, on its padding.
        whole = all((side - 1) * scale % stride == 0 for side in images.shape[-2:])
        inner = (...,) if whole else (..., slice(-1), slice(-1))
        torch.testing.assert_close(aligned[inner], maps[-1][inner])


def test_several_scales_need_the_first_pixel() -> None:
    with pytest.raises(ValueError, match="vgg16 of output_stride 32 does not"):
        small_model(
            "aspp_sum",
            backbone="vgg16",
            output_stride=32,
            width=0.125,
            channels=8,
            scales=(0.5, 1.0),
        )


# A network that sees the labels


class Seer(Segmenter):
    """An ideal network: it looks at every ``stride``-th pixel, whose red is the label."""

    colours = IMAGENET

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    @property
    def grid(self) -> Grid:
        return Grid(self.stride)

    def logits(self, images: Tensor) -> Tensor:
        red = self.grid.pad(images)[:, :1, :: self.stride, :: self.stride]
        return 20 * torch.cat([-red, red], dim=1)


@pytest.mark.parametrize("stride", STRIDES)
def test_predictions_of_an_ideal_network_are_exact(stride: int) -> None:
    """Images of several sizes, several of each; those that need no padding, and those that do."""
    sizes = [(65, 65), (50, 71), (65, 65), (97, 33), (50, 71)]
    labels = [
        draw_ellipses(size, count=index + 1)[index][: size[0], : size[1]]
        for index, size in enumerate(sizes)
    ]
    # 255 and 0 are not at the same distance from the mean colour; these are.
    images = [
        np.repeat(np.where(x[..., None], 224, 24), 3, axis=2).astype(np.uint8) for x in labels
    ]
    ends = np.cumsum([0, *(x.size for x in labels)])
    split = Split(
        [str(index) for index in range(len(sizes))],
        sizes,
        ["background", "ellipse"],
        np.concatenate([x.ravel() for x in images]),
        np.concatenate([x.ravel().astype(np.uint8) for x in labels]),
        ends[:-1].tolist(),
    )
    found: dict[int, Pixels] = dict(predict(Seer(stride), split, range(5), "", Inference()))
    for index, (label, size) in enumerate(zip(labels, sizes, strict=True)):
        rows, columns = (range(0, side - 1 + stride, stride) for side in size)
        padded = np.zeros((rows[-1] + 1, columns[-1] + 1))
        padded[: size[0], : size[1]] = np.where(label, 1, -1)
        few = torch.from_numpy(padded[np.ix_(rows, columns)])[None, None]
        exact = interpolate_by_hand(few, 1 / stride, size)[0, 0].numpy()
        decided = np.abs(exact) > 0.03
        assert found[index].shape == size
        np.testing.assert_array_equal(found[index][decided], exact[decided] > 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_labels_at_the_logits_are_those_that_the_network_sees(
    stride: int, size: tuple[int, int]
) -> None:
    label = draw_ellipses(size, count=1)[0][: size[0], : size[1]]
    labels = torch.from_numpy(label.astype(np.int64))[None]
    logits = Seer(stride).logits(torch.where(labels == 1, 1.0, -1.0)[:, None].expand(-1, 3, -1, -1))
    few = subsample(labels, logits.shape[-2:], Grid(stride))
    assert segmentation_loss(logits, few).item() < 1e-6
    beyond = [-(-(side - 1) // stride) * stride > side - 1 for side in size]
    assert (few == VOID).any().item() == any(beyond)
