"""Context radius: how much must be seen around a pixel to tell its class.

A window of radius r is a square with side 2 r + 1, centred on the pixel. The context radius of the
pixel is the radius of the smallest window whose content rules out every other class. A network with
a smaller receptive field can only guess. The radius is known only for generated scenes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.pixels import Pixels

UNDECIDABLE = 255

Mask = NDArray[np.bool_]


def compute_context_radii(
    pieces: Sequence[tuple[Mask, Iterable[Mask]]], size: tuple[int, int]
) -> Pixels:
    """Return the context radius of every pixel, uint8 (H, W), in pixels.

    It is ``UNDECIDABLE`` if the whole image does not show the class, and 0 outside all pieces.

    Args:
        pieces: from back to front, each one's mask (H, W), and for every look-alike of another
            class a mask of the pixels where the two differ. Pixels that a piece in front covers
            show nothing.
        size: (height, width) of the image.
    """
    radii = np.zeros(size, dtype=np.uint8)
    covered = np.zeros(size, dtype=bool)
    for mask, differences in reversed(pieces):
        shown = mask & ~covered
        for difference in differences if shown.any() else ():
            distances = compute_window_radii(difference & ~covered)
            radii[shown] = np.maximum(radii[shown], distances[shown])
        covered |= mask
    return radii


def compute_window_radii(mask: Mask) -> Pixels:
    """Return the radius of the smallest window around each pixel with a pixel of ``mask`` in it."""
    if not mask.any():
        return np.full(mask.shape, UNDECIDABLE, dtype=np.uint8)
    distances = ndimage.distance_transform_cdt(~mask, metric="chessboard")
    return np.minimum(distances, UNDECIDABLE - 1).astype(np.uint8)
