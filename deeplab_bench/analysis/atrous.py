"""Properties of atrous convolution (DeepLabv1, Section 3.1; DeepLabv3, Section 3.1)."""

import numpy as np
from numpy.typing import NDArray


def compute_extent(kernel_size: int, rate: int) -> int:
    """Compute the length of an atrous kernel along an axis in pixels: (k - 1) r + 1."""
    return (kernel_size - 1) * rate + 1


def insert_holes(kernel: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Insert zeros between the taps of a kernel, (..., k, k) -> (..., n, n)."""
    rows, columns = (compute_extent(taps, rate) for taps in kernel.shape[-2:])
    dense = np.zeros((*kernel.shape[:-2], rows, columns))
    dense[..., ::rate, ::rate] = kernel
    return dense


def count_valid_weights(side: int, rate: int) -> dict[int, float]:
    """Count the weights of a 3x3 kernel that are on the map, not on padding (DeepLabv3, Figure 4).

    The keys are numbers of weights, 1 to 9. The values are the fractions of the positions of a
    square map (side, side) with that number of weights. If the rate is ``side`` or more, only the
    middle weight is on the map.
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
