"""Trimaps: accuracy in narrow bands along the boundaries of the ground truth (DeepLabv2, Fig. 10).

Void counts as a label here: in Pascal VOC, whose objects have rims of void, the bands are those
along the rims that the paper takes. Void pixels themselves are not scored.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.metrics import Confusion

TRIMAP_WIDTHS = (1, 2, 5, 10, 20, 40)


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
