"""Tests of every metric against a loop over pixels, on random and on degenerate input."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures import confusion as metrics

Labels = tuple[Pixels, Pixels]  # ground truth and prediction


def random_labels(seed: int, classes: int, void: float = 0.2) -> Labels:
    random = np.random.default_rng(seed)
    label = random.integers(0, classes, (7, 9), dtype=np.uint8)
    prediction = np.where(
        random.random(label.shape) < 0.5, label, random.integers(0, classes, label.shape)
    ).astype(np.uint8)
    label[random.random(label.shape) < void] = VOID
    return label, prediction


def flat(label: list[int], prediction: list[int]) -> Labels:
    return np.array([label], dtype=np.uint8), np.array([prediction], dtype=np.uint8)


CASES = [
    *(pytest.param(3, random_labels(seed, 3), id=f"random-{seed}") for seed in range(3)),
    pytest.param(21, random_labels(3, 21), id="21-classes"),
    pytest.param(3, random_labels(4, 3, void=0.95), id="mostly-void"),
    pytest.param(2, random_labels(5, 2, void=0.0), id="no-void"),
    pytest.param(3, flat([VOID] * 4, [0, 1, 2, 2]), id="all-void"),
    pytest.param(3, flat([], []), id="empty"),
    pytest.param(1, flat([0, 0, VOID], [0, 0, 0]), id="one-class"),
    pytest.param(3, flat([0, 0, 1, 1], [0, 0, 1, 0]), id="absent-in-both"),
    pytest.param(3, flat([0, 0, 1, 1], [0, 2, 1, 1]), id="only-predicted"),
    pytest.param(3, flat([0, 0, 2, 2], [0, 0, 0, 0]), id="only-in-truth"),
    pytest.param(3, flat([0, 1, 2], [1, 2, 0]), id="all-wrong"),
]
each_case = pytest.mark.parametrize(("classes", "labels"), CASES)


def slow_pairs(labels: Labels) -> list[tuple[int, int]]:
    """List (ground truth, prediction) of every pixel that is not void."""
    label, prediction = labels
    height, width = label.shape
    return [
        (int(label[y, x]), int(prediction[y, x]))
        for y in range(height)
        for x in range(width)
        if label[y, x] != 255
    ]


def mean(values: list[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return sum(present) / len(present) if present else math.nan


def slow_iou(labels: Labels, classes: int) -> list[float]:
    values = []
    for c in range(classes):
        both = either = 0
        for truth, guess in slow_pairs(labels):
            both += truth == c and guess == c
            either += truth == c or guess == c
        values.append(both / either if either else math.nan)
    return values


def slow_miou(labels: Labels, classes: int) -> float:
    return mean(slow_iou(labels, classes))


def slow_pixel_accuracy(labels: Labels, classes: int) -> float:
    return mean([float(truth == guess) for truth, guess in slow_pairs(labels)])


def slow_mean_accuracy(labels: Labels, classes: int) -> float:
    pairs = slow_pairs(labels)
    return mean([mean([float(t == g) for t, g in pairs if t == c]) for c in range(classes)])


def slow_frequency_weighted_iou(labels: Labels, classes: int) -> float:
    """Compute the mean over pixels of the IoU of each pixel's true class."""
    of_class = slow_iou(labels, classes)
    return mean([of_class[truth] for truth, _ in slow_pairs(labels)])


@each_case
def test_confusion_matrix(classes: int, labels: Labels) -> None:
    expected = [[0] * classes for _ in range(classes)]
    for truth, guess in slow_pairs(labels):
        expected[truth][guess] += 1
    confusion = metrics.confusion_matrix(*labels, classes)
    assert confusion.dtype == np.int64
    assert confusion.tolist() == expected


@each_case
def test_iou(classes: int, labels: Labels) -> None:
    actual = metrics.iou(metrics.confusion_matrix(*labels, classes))
    assert actual.tolist() == pytest.approx(slow_iou(labels, classes), nan_ok=True)


@each_case
@pytest.mark.parametrize(
    ("metric", "slow"),
    [
        pytest.param(metrics.miou, slow_miou, id="miou"),
        pytest.param(metrics.pixel_accuracy, slow_pixel_accuracy, id="pixel_accuracy"),
        pytest.param(metrics.mean_accuracy, slow_mean_accuracy, id="mean_accuracy"),
        pytest.param(metrics.frequency_weighted_iou, slow_frequency_weighted_iou, id="fw_iou"),
    ],
)
def test_metric(
    metric: Callable[[metrics.Confusion], float],
    slow: Callable[[Labels, int], float],
    classes: int,
    labels: Labels,
) -> None:
    actual = metric(metrics.confusion_matrix(*labels, classes))
    assert isinstance(actual, float)
    assert actual == pytest.approx(slow(labels, classes), nan_ok=True)


def test_what_counts_in_miou() -> None:
    """Check absent classes, and classes only predicted or only in the truth, which count as 0."""
    absent = metrics.confusion_matrix(*flat([0, 0, 1, 1], [0, 0, 1, 0]), 3)
    np.testing.assert_allclose(metrics.iou(absent), [2 / 3, 1 / 2, np.nan])
    assert metrics.miou(absent) == pytest.approx(7 / 12)
    predicted = metrics.confusion_matrix(*flat([0, 0, 1, 1], [0, 2, 1, 1]), 3)
    assert metrics.iou(predicted).tolist() == [0.5, 1, 0]
    assert metrics.miou(predicted) == 0.5
    assert metrics.mean_accuracy(predicted) == 0.75
    missed = metrics.confusion_matrix(*flat([0, 0, 2, 2], [0, 0, 0, 0]), 3)
    assert metrics.miou(missed) == pytest.approx((0.5 + 0) / 2)


def test_background_counts_and_void_does_not() -> None:
    """Check an example whose figures change if void is class 0, or if class 0 is left out."""
    confusion = metrics.confusion_matrix(*flat([0, 0, 1, 1, VOID, VOID], [0, 1, 1, 1, 1, 0]), 2)
    assert confusion.sum() == 4
    assert metrics.iou(confusion).tolist() == pytest.approx([1 / 2, 2 / 3])
    assert metrics.miou(confusion) == pytest.approx(7 / 12)
    assert metrics.pixel_accuracy(confusion) == 3 / 4


def test_one_matrix_a_split_is_no_mean_over_images() -> None:
    """Check class 1 with 8 of 8 pixels right in one image and none of 2 in the other."""
    images = [flat([1] * 8 + [0] * 2, [1] * 8 + [0] * 2), flat([1] * 2 + [0] * 8, [0] * 10)]
    each = [metrics.confusion_matrix(*image, 2) for image in images]
    np.testing.assert_allclose(metrics.iou(each[0] + each[1]), [10 / 12, 8 / 10])
    assert metrics.miou(each[0] + each[1]) == pytest.approx(49 / 60)
    assert np.mean([metrics.miou(image) for image in each]) == pytest.approx((1 + 0.4) / 2)


def test_images_add_up() -> None:
    images = [random_labels(seed, 4) for seed in range(3)]
    labels, predictions = (np.concatenate(parts) for parts in zip(*images, strict=True))
    each = np.stack([metrics.confusion_matrix(*image, 4) for image in images])
    total = each.sum(axis=0)
    np.testing.assert_array_equal(total, metrics.confusion_matrix(labels, predictions, 4))
    for of_images, of_all in zip(
        metrics.intersection_and_union(each), metrics.intersection_and_union(total), strict=True
    ):
        assert of_images.shape == (3, 4)
        np.testing.assert_array_equal(of_images.sum(axis=0), of_all)


def test_order_of_pixels_is_immaterial() -> None:
    label, prediction = random_labels(0, 4)
    order = np.random.default_rng(1).permutation(label.size)
    np.testing.assert_array_equal(
        metrics.confusion_matrix(label.ravel()[order], prediction.ravel()[order], 4),
        metrics.confusion_matrix(label, prediction, 4),
    )


def test_roles_are_not_symmetric() -> None:
    """Check that rows are the ground truth."""
    confusion = metrics.confusion_matrix(*flat([0, 0, 0, 1], [1, 1, 0, 1]), 2)
    assert confusion.tolist() == [[1, 2], [0, 1]]
    assert metrics.mean_accuracy(confusion) == pytest.approx((1 / 3 + 1) / 2)


@pytest.mark.parametrize(
    ("label", "prediction"),
    [
        pytest.param(np.zeros((2, 3), int), np.zeros((3, 2), int), id="transposed"),
        pytest.param(np.zeros((2, 2), int), np.zeros((1, 2), int), id="broadcastable"),
    ],
)
def test_shapes_differ(label: NDArray[np.int64], prediction: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match=r"\(2, \d\).*differ in shape"):
        metrics.confusion_matrix(label, prediction, 2)


@pytest.mark.parametrize(
    ("label", "prediction"),
    [
        pytest.param([0, 3], [0, 0], id="label-too-large"),
        pytest.param([0, 0], [0, 3], id="prediction-too-large"),
        pytest.param([0, -1], [0, 2], id="label-negative"),
        pytest.param([2, 0], [0, -1], id="prediction-negative"),
        pytest.param([1, 1], [255, 0], id="prediction-void"),
    ],
)
def test_values_outside(label: list[int], prediction: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the 3 classes"):
        metrics.confusion_matrix(np.array(label), np.array(prediction), 3)


def test_any_prediction_may_stand_on_void() -> None:
    confusion = metrics.confusion_matrix(*flat([VOID, VOID, 1], [255, 77, 1]), 2)
    assert confusion.tolist() == [[0, 0], [0, 1]]
