"""Tests of trimaps against a loop over pixels, and of boundary IoU against erosion."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.boundaries import (
    compute_boundary_distances,
    count_boundary_regions,
    count_trimap_confusions,
)

WIDTHS = (1, 2, 3.5, 6, math.inf)


def random_label(seed: int, height: int = 20, width: int = 16, patch: int = 4) -> Pixels:
    """Make patches of three classes and void."""
    patches = np.random.default_rng(seed).choice([0, 0, 1, 2, VOID], (height, width))
    label = np.kron(patches, np.ones((patch, patch))).astype(np.uint8)
    return label[:height, :width]


@pytest.fixture(scope="module", params=["by hand", "random"])
def label(request: pytest.FixtureRequest) -> NDArray[np.uint8]:
    """Make a label of three classes, with void between two of them and a pixel in a corner."""
    if request.param == "random":
        return random_label(2, 30, 22, patch=16)
    label = np.zeros((18, 23), dtype=np.uint8)
    label[4:11, 5:13] = 2
    label[4:11, 13] = VOID
    label[8:, 14:] = 1
    label[17, 0] = 1
    return label


def slow_distances(label: NDArray[np.uint8]) -> NDArray[np.float64]:
    height, width = label.shape
    pixels = list(product(range(height), range(width)))
    edge = [
        (y, x)
        for y, x in pixels
        for v, u in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1))
        if 0 <= v < height and 0 <= u < width and label[v, u] != label[y, x]
    ]
    far = [min(math.hypot(y - v, x - u) for v, u in edge) for y, x in pixels]
    return 1 + np.array(far).reshape(label.shape)


def test_distances_by_a_slow_loop(label: NDArray[np.uint8]) -> None:
    np.testing.assert_allclose(compute_boundary_distances(label), slow_distances(label))


def test_confusions_by_a_slow_loop(label: NDArray[np.uint8]) -> None:
    predictions = np.random.default_rng(0).integers(0, 3, (2, *label.shape), dtype=np.uint8)
    expected = np.zeros((2, len(WIDTHS), 3, 3), dtype=np.int64)
    distances = slow_distances(label)
    for n, (y, x) in product(range(2), np.argwhere(label != VOID)):
        for index, width in enumerate(WIDTHS):
            expected[n, index, label[y, x], predictions[n, y, x]] += distances[y, x] <= width
    actual = count_trimap_confusions(label, predictions, 3, WIDTHS)
    np.testing.assert_array_equal(actual, expected)
    assert actual[0, -1].sum() == (label != VOID).sum() > actual[0, -2].sum() > 0


def test_a_straight_boundary_has_its_width_on_both_sides() -> None:
    label = np.repeat([[0] * 10 + [1] * 10], 4, axis=0).astype(np.uint8)
    bands = count_trimap_confusions(label, label[None], 2, (1, 2, 5))[0]
    assert [band.sum() for band in bands] == [4 * 2 * width for width in (1, 2, 5)]


def test_void_makes_a_boundary_and_is_not_scored() -> None:
    label = np.array([[0, 0, 0, VOID, 0, 0, 0]], dtype=np.uint8)
    bands = count_trimap_confusions(label, np.zeros_like(label)[None], 1, (1, 2))[0]
    assert [band.sum() for band in bands] == [2, 4]


def test_an_image_of_one_label_has_no_bands() -> None:
    label = np.ones((3, 4), dtype=np.uint8)
    bands = count_trimap_confusions(label, label[None], 2, (1, 1000, math.inf))[0]
    assert [band.sum() for band in bands] == [0, 0, 12]


def eroded_boundary(mask: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """Return the pixels that an erosion removes; outside the image there is no mask."""
    core = binary_erosion(mask, np.ones((3, 3), dtype=bool), iterations=distance, border_value=0)
    return mask & ~core


@pytest.mark.parametrize(
    ("height", "width", "distance"), [(12, 9, 1), (50, 40, 1), (60, 80, 2), (120, 160, 4)]
)
def test_boundary_iou_by_erosion(height: int, width: int, distance: int) -> None:
    """Compare each class, for diagonals of 15, 64, 100 and 200 pixels."""
    label, other = (random_label(seed, height, width, patch=max(3, height // 8)) for seed in (1, 2))
    prediction = np.where(other == VOID, 0, other).astype(np.uint8)
    intersection, union = count_boundary_regions(label, prediction, 4)
    for index in range(4):
        truth = eroded_boundary(label == index, distance)
        guess = eroded_boundary((prediction == index) & (label != VOID), distance)
        assert intersection[index] == (truth & guess).sum()
        assert union[index] == (truth | guess).sum()
    assert 0 < intersection.sum() < union.sum()
    assert union[3] == 0


def test_boundary_iou_by_hand() -> None:
    """Check a 6x6 square predicted one pixel too far right; 2 % of the diagonal is one pixel."""
    label, prediction = np.zeros((2, 20, 20), dtype=np.uint8)
    label[5:11, 5:11] = prediction[5:11, 6:12] = 1
    intersection, union = count_boundary_regions(label, prediction, 2)
    # Rings of 20 pixels each, which share their long sides, 2 of 5 pixels.
    assert (intersection[1], union[1]) == (10, 30)


@pytest.mark.parametrize("seed", range(3))
def test_identical_masks_have_a_boundary_iou_of_one(seed: int) -> None:
    """Check that predictions at void pixels do not count."""
    label = random_label(seed, 70, 70, patch=9)
    prediction = np.where(label == VOID, seed, label).astype(np.uint8)
    intersection, union = count_boundary_regions(label, prediction, 3)
    assert (intersection == union).all() and union.all()


def test_an_image_of_void_has_no_boundary_region() -> None:
    label = np.full((9, 9), VOID, dtype=np.uint8)
    assert not count_boundary_regions(label, np.zeros_like(label), 2).any()


def test_a_class_that_fills_the_image_has_its_border() -> None:
    label = np.ones((10, 12), dtype=np.uint8)
    assert count_boundary_regions(label, label, 2).tolist() == [[0, 40], [0, 40]]
