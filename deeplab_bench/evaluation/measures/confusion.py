"""Confusion matrices and what is read off them (FCN, Section 5; Pascal VOC's VOCevalseg).

A confusion matrix is (C, C), int64, rows the ground truth and columns the prediction, of valid
pixels only. One matrix covers a whole split: mIoU is not a mean over images.
"""

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.voc_layout import VOID

Confusion = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion_matrix(
    label: NDArray[np.integer], prediction: NDArray[np.integer], num_classes: int
) -> Confusion:
    """Count the pixels of every (ground truth, prediction), void ones left out.

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
    """Per class, from (..., C, C): both (..., C), in pixels."""
    intersection = np.diagonal(confusion, axis1=-2, axis2=-1)
    return intersection, confusion.sum(-1) + confusion.sum(-2) - intersection


def iou(confusion: Confusion) -> Floats:
    """Intersection over union per class (C,), NaN for one in neither ground truth nor result."""
    intersection, union = intersection_and_union(confusion)
    return ratio(intersection, union)


def miou(confusion: Confusion) -> float:
    """Mean IoU over the classes in ground truth or prediction; NaN without a valid pixel."""
    return mean(iou(confusion))


def pixel_accuracy(confusion: Confusion) -> float:
    return float(ratio(np.trace(confusion), confusion.sum()))


def mean_accuracy(confusion: Confusion) -> float:
    """Mean over the classes in the ground truth of the fraction of their pixels found."""
    return mean(ratio(np.diagonal(confusion), confusion.sum(1)))


def frequency_weighted_iou(confusion: Confusion) -> float:
    """IoU weighted by each class's share of the ground truth."""
    shares = ratio(confusion.sum(axis=1), confusion.sum())
    return float((shares * np.nan_to_num(iou(confusion))).sum())


def ratio(part: NDArray[np.integer], whole: NDArray[np.integer]) -> Floats:
    """NaN where there is no ``whole``."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean(values: Floats) -> float:
    """Of the values that are not NaN; NaN without one."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
