"""Accuracy by the size of objects, the connected components of the ground truth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deeplab_bench.data.voc_layout import VOID, Pixels

BINS = ("small", "medium", "large")
LEAST_SHARE = 5e-4


def object_areas(label: Pixels, background: int | None) -> NDArray[np.int64]:
    """Area in pixels of every object, (H, W) int64; 0 outside objects.

    An object is a 4-connected component of one class, neither void nor ``background``, that covers
    a two-thousandth of the image at least: less is a scrap left by occlusion or annotation.
    """
    areas = np.zeros(label.shape, dtype=np.int64)
    for index in np.unique(label):
        if index not in (VOID, background):
            components, _ = ndimage.label(label == index)
            areas += np.where(components, np.bincount(components.ravel())[components], 0)
    return np.where(areas >= LEAST_SHARE * label.size, areas, 0)


def area_edges(areas: Sequence[NDArray[np.int64]]) -> list[float]:
    """The areas that part a split's objects into ``BINS`` of equal count, in pixels.

    From each image's object areas; a component of area a has a pixels that say so.
    """
    objects = np.concatenate([object_list(image) for image in areas])
    if not objects.size:
        return []
    return [float(edge) for edge in np.quantile(objects, [1 / 3, 2 / 3])]


def object_list(areas: NDArray[np.int64]) -> NDArray[np.int64]:
    """The areas of an image's objects, one entry an object, from its map of areas."""
    values, counts = np.unique(areas[areas > 0], return_counts=True)
    return np.repeat(values, counts // values)


def size_bins(areas: NDArray[np.int64], edges: Sequence[float]) -> NDArray[np.int64] | None:
    """The bin of the object nearest to every pixel, (H, W), or None without an object.

    Pixels outside all objects count too, so that a false alarm is charged to the size of the
    object beside it.
    """
    if not areas.any():
        return None
    nearest = ndimage.distance_transform_edt(
        areas == 0, return_distances=False, return_indices=True
    )
    return np.searchsorted(edges, areas[tuple(nearest)], side="left")
