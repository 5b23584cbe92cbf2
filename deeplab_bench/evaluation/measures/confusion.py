"""Confusion matrices and the metrics computed from them (FCN, Section 5; VOC's VOCevalseg).

A confusion matrix (C, C) counts valid pixels; rows are the ground truth, columns the prediction.
One matrix covers a whole split: mIoU is not a mean over images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.measure import Measure, round_fraction

Confusion = NDArray[np.int64]
Floats = NDArray[np.float64]


class ConfusionMeasure(Measure):
    """The entries ``metrics``, ``iou`` and ``absent_classes``, and the counts ``images``."""

    def __init__(self, split: Split) -> None:
        self.split = split
        classes = len(split.classes)
        self.counts = {"by_image": np.zeros((len(split), classes, classes), dtype=np.int64)}

    def update(self, index: int, label: Pixels, prediction: Pixels) -> None:
        classes = len(self.split.classes)
        self.counts["by_image"][index] += confusion_matrix(label, prediction, classes)

    def record(self) -> dict[str, Any]:
        """Return the figures and, for each image, [class, intersection, union] in pixels.

        An image has an entry for every class whose union is not empty.
        """
        by_image = self.counts["by_image"]
        whole = by_image.sum(axis=0)
        class_iou = dict(zip(self.split.classes, map(round_fraction, iou(whole)), strict=True))
        intersections, unions = intersection_and_union(by_image)
        return {
            "metrics": {
                "miou": round_fraction(miou(whole)),
                "pixel_accuracy": round_fraction(pixel_accuracy(whole)),
                "mean_accuracy": round_fraction(mean_accuracy(whole)),
                "frequency_weighted_iou": round_fraction(frequency_weighted_iou(whole)),
            },
            "iou": class_iou,
            "absent_classes": [name for name, value in class_iou.items() if value is None],
            "images": {
                name: [[int(c), int(inter[c]), int(union[c])] for c in np.flatnonzero(union)]
                for name, inter, union in zip(self.split.names, intersections, unions, strict=True)
            },
        }


def confusion_matrix(
    label: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int
) -> Confusion:
    """Count the pixels of every pair (ground truth, prediction); void pixels are left out.

    Raises:
        ValueError: the shapes differ, or a value is neither a class nor, in ``label``, void.
    """
    if label.shape != prediction.shape:
        raise ValueError(f"label {label.shape} and prediction {prediction.shape} differ in shape")
    valid = label != VOID
    truth, guess = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    if truth.size and not 0 <= min(truth.min(), guess.min()) <= max(truth.max(), guess.max()) < (
        num_classes
    ):
        raise ValueError(f"a label or prediction lies outside the {num_classes} classes")
    counts = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def intersection_and_union(confusion: Confusion) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Compute both for each class, (..., C) in pixels, from confusion matrices (..., C, C)."""
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(-1) + confusion.sum(-2) - intersection


def iou(confusion: Confusion) -> Floats:
    """Compute the IoU of each class, (C,); NaN if neither ground truth nor prediction shows it."""
    intersection, union = intersection_and_union(confusion)
    return ratio(intersection, union)


def miou(confusion: Confusion) -> float:
    """Compute the mean IoU of the classes in ground truth or prediction; NaN if there are none."""
    return mean(iou(confusion))


def pixel_accuracy(confusion: Confusion) -> float:
    """Compute the share of valid pixels that are correct; NaN if there are none."""
    return float(ratio(np.trace(confusion), confusion.sum()))


def mean_accuracy(confusion: Confusion) -> float:
    """Compute the mean recall of the classes in the ground truth; NaN if there are none."""
    return mean(ratio(np.diagonal(confusion), confusion.sum(1)))


def frequency_weighted_iou(confusion: Confusion) -> float:
    """Compute the mean IoU weighted by each class's share of the ground truth."""
    shares = ratio(confusion.sum(axis=1), confusion.sum())
    return float((shares * np.nan_to_num(iou(confusion))).sum())


def ratio(part: NDArray[np.integer], whole: NDArray[np.integer]) -> Floats:
    """Divide element by element; NaN where ``whole`` is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean(values: Floats) -> float:
    """Compute the mean of the values that are not NaN; NaN if there are none."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def find_background(classes: Sequence[str]) -> int | None:
    """Find the index of the class ``background``; None if there is no such class."""
    return classes.index("background") if "background" in classes else None
