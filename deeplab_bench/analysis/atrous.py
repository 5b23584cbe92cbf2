"""Atrous convolution (DeepLabv1, Section 3.1; DeepLabv3, Section 3.1): a kernel with holes."""

import numpy as np
from numpy.typing import NDArray


def extent(kernel_size: int, rate: int) -> int:
    """The pixels along an axis that a kernel spans: (k - 1) r + 1."""
    return (kernel_size - 1) * rate + 1


def with_holes(kernel: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """The dense kernel that an atrous one is: (..., k, k) -> (..., n, n), zeros between taps."""
    rows, columns = (extent(taps, rate) for taps in kernel.shape[-2:])
    dense = np.zeros((*kernel.shape[:-2], rows, columns))
    dense[..., ::rate, ::rate] = kernel
    return dense


def valid_weights(side: int, rate: int) -> dict[int, float]:
    """How many weights of a 3x3 kernel fall on the map, not on padding (DeepLabv3, Figure 4).

    By their number the fraction of the positions of a square map of ``side``; at no rate are all
    numbers found, and at ``side`` and beyond there is but the one weight in the middle.
    """
    three = max(side - 2 * rate, 0)
    one = min(max(2 * rate - side, 0), side)
    along_an_axis = {1: one / side, 2: (side - one - three) / side, 3: three / side}
    fractions: dict[int, float] = {}
    for rows, share_of_rows in along_an_axis.items():
        for columns, share_of_columns in along_an_axis.items():
            count = rows * columns
            fractions[count] = fractions.get(count, 0.0) + share_of_rows * share_of_columns
    return fractions
