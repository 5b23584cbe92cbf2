"""Accuracy near boundaries: trimaps (DeepLabv2, Figure 10), boundary IoU (Cheng et al., CVPR 2021).

Void counts as a label here: in Pascal VOC, whose objects have rims of void, the bands are those
along the rims that DeepLabv2 takes. Void pixels themselves are not scored.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.evaluation.measures.confusion import Confusion

TRIMAP_WIDTHS = (1, 2, 5, 10, 20, 40)
BOUNDARY_SHARE = 0.02


def boundary_distances(label: Pixels) -> NDArray[np.float64]:
    """How far each pixel is from a boundary, (H, W) in pixels.

    1 beside a pixel of another label, above, below, left or right of it, and as much more as the
    nearest such pixel is away; infinite in an image of one label.
    """
    inside = np.ones(label.shape, dtype=bool)
    for axis in range(2):
        here, there = (np.moveaxis(inside, axis, 0)[part] for part in np.s_[1:, :-1])
        change = np.moveaxis(np.diff(label, axis=axis) != 0, axis, 0)
        here[change] = there[change] = False
    if inside.all():
        return np.full(label.shape, np.inf)
    return 1 + ndimage.distance_transform_edt(inside)


def trimap_confusions(
    label: Pixels, predictions: NDArray[np.uint8], classes: int, widths: Sequence[float]
) -> Confusion:
    """Confusion matrices (N, len(widths), C, C) of the valid pixels within each width.

    Of predictions (N, H, W), all of the same image; ``widths``, in pixels, ascend, and an infinite
    one takes in the whole image.
    """
    valid = label != VOID
    band = np.searchsorted(widths, boundary_distances(label)[valid])
    cell = (band * classes + label[valid]) * classes
    size = (len(widths) + 1, classes, classes)
    counts = [
        np.bincount(cell + prediction[valid], minlength=size[0] * classes**2).reshape(size)
        for prediction in predictions
    ]
    return np.stack(counts)[:, :-1].cumsum(axis=1)


def boundary_intersection_and_union(
    label: Pixels, prediction: Pixels, classes: int
) -> NDArray[np.int64]:
    """Of the boundary regions of every class in both label maps (H, W): (2, classes) in pixels.

    A mask's boundary region is what of it lies within ``BOUNDARY_SHARE`` of the image's diagonal of
    its contour, the image's border included (Section 4). Where the ground truth is void the
    prediction counts as void as well, so that both have their contours along it.
    """
    shown = np.where(label == VOID, VOID, prediction)
    truth = np.where(boundary_region(label), label, VOID)
    guess = np.where(boundary_region(shown), shown, VOID)
    both = np.where(truth == guess, truth, VOID)
    intersection, truths, guesses = (
        np.bincount(region.ravel(), minlength=VOID + 1)[:classes] for region in (both, truth, guess)
    )
    return np.stack([intersection, truths + guesses - intersection])


def boundary_region(label: Pixels) -> NDArray[np.bool_]:
    """The pixels (H, W) with another label, or the world beyond the image, within the distance.

    As erosion by 3x3 repeated: the distance is the larger of those along the two axes.
    """
    side = 2 * max(1, round(BOUNDARY_SHARE * math.hypot(*label.shape))) + 1
    lowest = ndimage.minimum_filter(label, side, mode="constant", cval=VOID)
    return lowest != ndimage.maximum_filter(label, side, mode="constant", cval=VOID)
