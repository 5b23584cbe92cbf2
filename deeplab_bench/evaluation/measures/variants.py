"""Scoring variants found in published code, computed from pixel counts.

The protocol of FCN and Pascal VOC (``confusion``) counts the valid pixels of all images, at their
own sizes, in one confusion matrix. Each of ``VARIANTS`` differs from it in one respect.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.evaluation.measures.confusion import (
    Confusion,
    intersection_and_union,
    iou,
    mean,
    miou,
    ratio,
)


@dataclass(frozen=True)
class Counts:
    """The pixel counts from which all variants are computed.

    ``per_image``: a confusion matrix of each image (N, C, C). ``resized`` and ``cropped``: that of
    the split in these views (C, C). ``on_void``: the predictions of each class where the ground
    truth is void (C,). ``background``: the index of this class, None if there is no such class.
    """

    per_image: Confusion
    resized: Confusion
    cropped: Confusion
    on_void: NDArray[np.int64]
    background: int | None

    @property
    def whole(self) -> Confusion:
        return self.per_image.sum(axis=0)


def protocol(counts: Counts) -> float:
    """Compute the mIoU of the protocol, without any change."""
    return miou(counts.whole)


def resized_labels(counts: Counts) -> float:
    """Resize images and labels to the training's crop size, labels with nearest neighbour."""
    return miou(counts.resized)


def centre_crop(counts: Counts) -> float:
    """Predict and score only the centre of each image, of the training's crop size."""
    return miou(counts.cropped)


def mean_of_images(counts: Counts) -> float:
    """Average the mIoU of each image, over the classes in its ground truth or prediction."""
    return mean(np.array([miou(confusion) for confusion in counts.per_image]))


def mean_of_images_absent_zero(counts: Counts) -> float:
    """Average the mIoU of each image, over all classes; a class in neither counts as 0."""
    return float(np.nan_to_num([iou(confusion) for confusion in counts.per_image]).mean())


def absent_zero(counts: Counts) -> float:
    """Count a class in neither ground truth nor prediction of the split as IoU 0."""
    return float(np.nan_to_num(iou(counts.whole)).mean())


def present_in_truth(counts: Counts) -> float:
    """Leave out classes that are not in the ground truth, even if they are predicted."""
    return mean(iou(counts.whole)[counts.whole.sum(axis=1) > 0])


def void_as_background(counts: Counts) -> float:
    """Label void pixels as background; NaN if there is no such class."""
    if counts.background is None:
        return math.nan
    confusion = counts.whole
    confusion[counts.background] += counts.on_void
    return miou(confusion)


def void_as_wrong(counts: Counts) -> float:
    """Add the predictions on void pixels to the union of their class."""
    intersection, union = intersection_and_union(counts.whole)
    return mean(ratio(intersection, union + counts.on_void))


VARIANTS = {
    variant.__name__: variant
    for variant in (
        resized_labels,
        centre_crop,
        mean_of_images,
        mean_of_images_absent_zero,
        absent_zero,
        present_in_truth,
        void_as_background,
        void_as_wrong,
    )
}
