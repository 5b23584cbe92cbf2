"""Pixel accuracy by context radius (defined in ``deeplab_bench.data.context_radius``)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.measure import Measure

RADIUS_BINS = (0, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # the largest radius of each bin, in pixels


class ContextAccuracyMeasure(Measure):
    """The entry ``context_radius``: null if the data set has no context radii."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.counts = {}
        if split.context_radii is not None:
            self.counts["by_radius"] = np.zeros((2, len(RADIUS_BINS) + 1), dtype=np.int64)

    def update(self, index: int, label: Pixels, prediction: Pixels) -> None:
        radii = self.split.context_radius(index)
        if radii is not None:
            self.counts["by_radius"] += count_by_radius(label, prediction, radii)

    def record(self) -> dict[str, Any]:
        if not self.counts:
            return {"context_radius": None}
        correct, total = self.counts["by_radius"].tolist()
        largest = list(RADIUS_BINS)
        return {"context_radius": {"largest_px": largest, "correct": correct, "total": total}}


def count_by_radius(label: Pixels, prediction: Pixels, radii: Pixels) -> NDArray[np.int64]:
    """Count the correct pixels and all valid pixels of each bin, (2, len(RADIUS_BINS) + 1).

    The last bin holds the radii above the largest of ``RADIUS_BINS``.
    """
    valid = label != VOID
    bins = np.searchsorted(RADIUS_BINS, radii[valid])
    correct = bins[label[valid] == prediction[valid]]
    counts = [np.bincount(each, minlength=len(RADIUS_BINS) + 1) for each in (correct, bins)]
    return np.stack(counts)
