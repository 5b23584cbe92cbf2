"""Trimaps against a slow loop over pixels."""

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_bench.boundaries import boundary_distances, trimap_confusions
from deeplab_bench.data.voc_layout import VOID

WIDTHS = (1, 2, 3.5, 6, math.inf)


@pytest.fixture(scope="module")
def label() -> NDArray[np.uint8]:
    """Three classes, void between two of them, a lone pixel in a corner."""
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
    np.testing.assert_allclose(boundary_distances(label), slow_distances(label))


def test_confusions_by_a_slow_loop(label: NDArray[np.uint8]) -> None:
    predictions = np.random.default_rng(0).integers(0, 3, (2, *label.shape), dtype=np.uint8)
    expected = np.zeros((2, len(WIDTHS), 3, 3), dtype=np.int64)
    distances = slow_distances(label)
    for n, (y, x) in product(range(2), np.argwhere(label != VOID)):
        for index, width in enumerate(WIDTHS):
            expected[n, index, label[y, x], predictions[n, y, x]] += distances[y, x] <= width
    actual = trimap_confusions(label, predictions, 3, WIDTHS)
    np.testing.assert_array_equal(actual, expected)
    assert actual[0, -1].sum() == (label != VOID).sum() > actual[0, -2].sum() > 0


def test_a_straight_boundary_has_its_width_on_both_sides() -> None:
    label = np.repeat([[0] * 10 + [1] * 10], 4, axis=0).astype(np.uint8)
    bands = trimap_confusions(label, label[None], 2, (1, 2, 5))[0]
    assert [band.sum() for band in bands] == [4 * 2 * width for width in (1, 2, 5)]


def test_void_makes_a_boundary_and_is_not_scored() -> None:
    label = np.array([[0, 0, 0, VOID, 0, 0, 0]], dtype=np.uint8)
    bands = trimap_confusions(label, np.zeros_like(label)[None], 1, (1, 2))[0]
    assert [band.sum() for band in bands] == [2, 4]


def test_an_image_of_one_label_has_no_bands() -> None:
    label = np.ones((3, 4), dtype=np.uint8)
    bands = trimap_confusions(label, label[None], 2, (1, 1000, math.inf))[0]
    assert [band.sum() for band in bands] == [0, 0, 12]
