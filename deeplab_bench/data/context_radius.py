"""Context radius: how much must be seen around a pixel to tell its class.

The context radius r of a pixel is that of the smallest square window, of 2 r + 1 pixels a side and
centred on it, in which the scene differs from every scene whose pixel is of another class. A
network whose receptive field is smaller can but guess. Only a generator of scenes knows it.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.voc_layout import Pixels

UNDECIDABLE = 255

Mask = NDArray[np.bool_]


def context_radii(pieces: Sequence[tuple[Mask, Iterable[Mask]]], size: tuple[int, int]) -> Pixels:
    """The context radius of every pixel (H, W), ``UNDECIDABLE`` if all of the image is too little.

    ``pieces``, back to front: where each lies, and for each of its look-alikes of another class
    where the two differ. What a piece in front covers tells nothing; outside pieces a pixel is told
    by itself.
    """
    radii = np.zeros(size, dtype=np.uint8)
    covered = np.zeros(size, dtype=bool)
    for mask, differences in reversed(pieces):
        shown = mask & ~covered
        for difference in differences if shown.any() else ():
            distances = window_radii(difference & ~covered)
            radii[shown] = np.maximum(radii[shown], distances[shown])
        covered |= mask
    return radii


def window_radii(mask: Mask) -> Pixels:
    """Of the smallest windows around each pixel (H, W) that hold a pixel of ``mask``."""
    if not mask.any():
        return np.full(mask.shape, UNDECIDABLE, dtype=np.uint8)
    distances = ndimage.distance_transform_cdt(~mask, metric="chessboard")
    return np.minimum(distances, UNDECIDABLE - 1).astype(np.uint8)
