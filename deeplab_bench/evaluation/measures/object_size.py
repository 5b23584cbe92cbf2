"""Accuracy by the size of objects, the connected components of the ground truth."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, find_background, miou
from deeplab_bench.evaluation.measures.measure import Measure, round_fraction

TERCILES = (1 / 3, 2 / 3)
BINS = len(TERCILES) + 1
SMALLEST_SHARE = 5e-4


class ObjectSizeMeasure(Measure):
    """The entry ``object_size``: the mIoU of the pixels nearest to objects of each size."""

    def __init__(self, split: Split) -> None:
        background = find_background(split.classes)
        self.areas = [
            compute_object_areas(split.label(index), background) for index in range(len(split))
        ]
        self.edges = compute_area_edges(self.areas)
        classes = len(split.classes)
        self.counts = {"by_size": np.zeros((BINS, classes, classes), dtype=np.int64)}

    def update(self, index: int, label: Pixels, prediction: Pixels) -> None:
        by_size = self.counts["by_size"]
        bins = find_size_bins(self.areas[index], self.edges)
        for size in range(BINS) if bins is not None else ():
            here = bins == size
            by_size[size] += confusion_matrix(label[here], prediction[here], by_size.shape[-1])

    def record(self) -> dict[str, Any]:
        return {
            "object_size": {
                "edges_px": [round(math.sqrt(edge), 2) for edge in self.edges],
                "miou": [round_fraction(miou(counts)) for counts in self.counts["by_size"]],
            }
        }


def compute_object_areas(label: Pixels, background: int | None) -> NDArray[np.int64]:
    """Compute the area of the object at each pixel, (H, W) in pixels; 0 outside objects.

    An object is a 4-connected component of one class, neither void nor ``background``. Components
    smaller than ``SMALLEST_SHARE`` of the image are ignored: they are left over by occlusion or
    are errors of annotation.
    """
    areas = np.zeros(label.shape, dtype=np.int64)
    for index in np.unique(label):
        if index not in (VOID, background):
            components, _ = ndimage.label(label == index)
            areas += np.where(components, np.bincount(components.ravel())[components], 0)
    return np.where(areas >= SMALLEST_SHARE * label.size, areas, 0)


def compute_area_edges(areas: Sequence[NDArray[np.int64]]) -> list[float]:
    """Compute the terciles of the areas of a split's objects, in pixels.

    ``areas`` are the object areas (H, W) of every image. Empty if no image has an object.
    """
    objects = np.concatenate([list_object_areas(image) for image in areas])
    if not objects.size:
        return []
    return [float(edge) for edge in np.quantile(objects, TERCILES)]


def list_object_areas(areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """List the area of each object of an image once, from the areas (H, W) at its pixels."""
    values, counts = np.unique(areas[areas > 0], return_counts=True)
    return np.repeat(values, counts // values)


def find_size_bins(areas: NDArray[np.int64], edges: Sequence[float]) -> NDArray[np.int64] | None:
    """Find the size bin of the object nearest to every pixel, (H, W); None without an object.

    Pixels outside objects count as well: a false positive counts for the size of the object
    nearest to it.
    """
    if not areas.any():
        return None
    nearest = ndimage.distance_transform_edt(
        areas == 0, return_distances=False, return_indices=True
    )
    return np.searchsorted(edges, areas[tuple(nearest)], side="left")
