"""Accuracy near boundaries: trimaps (DeepLabv2, Figure 10), boundary IoU (Cheng et al., CVPR 2021).

Void has boundaries like a class. Objects of Pascal VOC are outlined by void: the bands then lie
along these outlines, as in DeepLabv2. Void pixels themselves are not scored.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.confusion import Confusion, mean, miou, ratio
from deeplab_bench.evaluation.measures.measure import Measure, round_fraction

TRIMAP_WIDTHS = (1, 2, 5, 10, 20, 40)
BOUNDARY_SHARE = 0.02


class BoundaryMeasure(Measure):
    """The entry ``boundaries``: mIoU in bands along boundaries, and boundary IoU."""

    def __init__(self, split: Split) -> None:
        self.classes = split.classes
        classes = len(split.classes)
        self.counts = {
            "by_width": np.zeros((len(TRIMAP_WIDTHS), classes, classes), dtype=np.int64),
            "regions": np.zeros((2, classes), dtype=np.int64),
        }

    def update(self, index: int, label: Pixels, prediction: Pixels) -> None:
        classes = len(self.classes)
        (by_width,) = count_trimap_confusions(label, prediction[None], classes, TRIMAP_WIDTHS)
        self.counts["by_width"] += by_width
        self.counts["regions"] += count_boundary_regions(label, prediction, classes)

    def record(self) -> dict[str, Any]:
        return {
            "boundaries": {
                "trimap_widths_px": list(TRIMAP_WIDTHS),
                "trimap_miou": [round_fraction(miou(band)) for band in self.counts["by_width"]],
                "distance_share": BOUNDARY_SHARE,
                **record_boundary_iou(self.counts["regions"], self.classes),
            }
        }


def record_boundary_iou(regions: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Compute the boundary IoU of each class and their mean, from counts (2, C)."""
    boundary_iou = ratio(*regions)
    return {
        "boundary_iou": dict(zip(classes, map(round_fraction, boundary_iou), strict=True)),
        "boundary_miou": round_fraction(mean(boundary_iou)),
    }


def compute_boundary_distances(label: Pixels) -> NDArray[np.float64]:
    """Compute the distance of each pixel to the nearest boundary, (H, W) in pixels.

    A pixel with another label above, below, left or right of it has distance 1. Any other pixel
    has 1 plus the distance to the nearest such pixel, infinite in an image of one label.
    """
    inside = np.ones(label.shape, dtype=bool)
    for axis in range(2):
        here, there = (np.moveaxis(inside, axis, 0)[part] for part in np.s_[1:, :-1])
        change = np.moveaxis(np.diff(label, axis=axis) != 0, axis, 0)
        here[change] = there[change] = False
    if inside.all():
        return np.full(label.shape, np.inf)
    return 1 + ndimage.distance_transform_edt(inside)


def count_trimap_confusions(
    label: Pixels, predictions: NDArray[np.uint8], classes: int, widths: Sequence[float]
) -> Confusion:
    """Count confusion matrices (N, len(widths), C, C) of the valid pixels within each width.

    The predictions (N, H, W) are all of the same image. ``widths`` are in pixels and ascend; an
    infinite width takes the whole image.
    """
    valid = label != VOID
    band = np.searchsorted(widths, compute_boundary_distances(label)[valid])
    cell = (band * classes + label[valid]) * classes
    size = (len(widths) + 1, classes, classes)
    counts = [
        np.bincount(cell + prediction[valid], minlength=size[0] * classes**2).reshape(size)
        for prediction in predictions
    ]
    return np.stack(counts)[:, :-1].cumsum(axis=1)


def count_boundary_regions(label: Pixels, prediction: Pixels, classes: int) -> NDArray[np.int64]:
    """Count the intersection and union of each class's boundary regions, (2, C) in pixels.

    The boundary region of a mask is the part of it within ``BOUNDARY_SHARE`` of the image's
    diagonal of its contour; the image's border is part of the contour (Section 4). Where the ground
    truth is void, the prediction counts as void as well, so that both have a contour there.
    """
    shown = np.where(label == VOID, VOID, prediction)
    truth = np.where(find_boundary_region(label), label, VOID)
    guess = np.where(find_boundary_region(shown), shown, VOID)
    both = np.where(truth == guess, truth, VOID)
    intersection, truths, guesses = (
        np.bincount(region.ravel(), minlength=VOID + 1)[:classes] for region in (both, truth, guess)
    )
    return np.stack([intersection, truths + guesses - intersection])


def find_boundary_region(label: Pixels) -> NDArray[np.bool_]:
    """Find the pixels (H, W) with another label, or the outside of the image, within the distance.

    This equals repeated erosion by 3x3: a distance is the larger of those along the two axes.
    """
    side = 2 * max(1, round(BOUNDARY_SHARE * math.hypot(*label.shape))) + 1
    lowest = ndimage.minimum_filter(label, side, mode="constant", cval=VOID)
    return lowest != ndimage.maximum_filter(label, side, mode="constant", cval=VOID)
