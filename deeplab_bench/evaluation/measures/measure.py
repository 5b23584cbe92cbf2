"""The interface of a measure."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import Pixels


class Measure(ABC):
    """Counts over the predictions of a split, and the figures computed from them.

    ``counts`` holds all that ``update`` changes, as arrays that can be summed over images: neither
    the order of the images nor their division among processes changes the figures.
    """

    counts: dict[str, NDArray[np.int64]]

    @abstractmethod
    def __init__(self, split: Split) -> None:
        """Set all ``counts`` to zero."""

    @abstractmethod
    def update(self, index: int, label: Pixels, prediction: Pixels) -> None:
        """Count one image of the split: its index, label (H, W) and prediction (H, W)."""

    def merge(self, all_reduce_sum: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Sum the counts over all processes. Each has counted a share of the images."""
        self.counts = {name: all_reduce_sum(counts) for name, counts in self.counts.items()}

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return entries of the run's JSON file; a figure is null if there was nothing to count."""


def round_fraction(value: float) -> float | None:
    """Round to six digits; NaN becomes None, because JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 6)
