"""The work of a worker process: refine one image by the CRF, and count its pixels.

``scores`` and ``beliefs`` are the score map and the belief map, as defined in ``mean_field``.
"""

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.pixels import Pixels
from deeplab_bench.evaluation.crf.mean_field import CRFParameters, Floats, iterate_mean_field
from deeplab_bench.evaluation.crf.processes import map_in_processes
from deeplab_bench.evaluation.measures.boundaries import (
    count_boundary_regions,
    count_trimap_confusions,
)
from deeplab_bench.evaluation.measures.confusion import Confusion


@dataclass(frozen=True)
class Task:
    """An image (H, W, 3) with its label (H, W) and class probabilities (C, H, W).

    ``iterations``: the iterations after which to count, ascending. ``widths``: the trimap widths,
    as in ``count_trimap_confusions``. ``count_regions``: whether to count boundary regions.
    ``pictured_class``: the class whose score and belief maps are returned; no maps if it is None.
    """

    probabilities: NDArray[np.floating]
    image: Pixels
    label: Pixels
    parameters: CRFParameters
    iterations: Sequence[int]
    widths: Sequence[float]
    count_regions: bool = False
    pictured_class: int | None = None


@dataclass(frozen=True)
class Pictures:
    """The labels, and the score and belief maps of one class, after N iterations; all (N, H, W)."""

    labels: Pixels
    scores: Floats
    beliefs: Floats


@dataclass(frozen=True)
class Refined:
    """The counts of one image after each of N iterations.

    ``confusions``: confusion matrices (N, len(widths), C, C). ``regions``: intersection and union
    of the boundary regions (N, 2, C) in pixels; empty unless ``count_regions`` is set. ``seconds``:
    the time of inference, without counting.
    """

    confusions: Confusion
    regions: NDArray[np.int64]
    seconds: float
    pictures: Pictures | None


def refine_images(tasks: Iterable[Task], workers: int) -> Generator[Refined, None, None]:
    """Refine images by the CRF in ``workers`` processes; yield the results in order.

    Raises:
        CRFError: pydensecrf is not installed.
        WorkerError: a worker process was killed.
    """
    return map_in_processes(refine_image, tasks, workers)


def label_image(
    pair: tuple[NDArray[np.floating], Pixels], parameters: CRFParameters, iterations: int
) -> Pixels:
    """Label an image by the CRF's beliefs after ``iterations``: class indices (H, W).

    ``pair`` is its class probabilities (C, H, W) and itself (H, W, 3).
    """
    ((_, beliefs),) = iterate_mean_field(*pair, parameters, (iterations,))
    return beliefs.argmax(axis=0).astype(np.uint8)


def refine_image(task: Task) -> Refined:
    """Refine one image by the CRF and count its pixels after the task's iterations."""
    started = time.perf_counter()
    labels, scores, beliefs = [], [], []
    for score, belief in iterate_mean_field(
        task.probabilities, task.image, task.parameters, task.iterations
    ):
        labels.append(belief.argmax(axis=0).astype(np.uint8))
        if task.pictured_class is not None:
            scores.append(score[task.pictured_class])
            beliefs.append(belief[task.pictured_class])
    seconds = time.perf_counter() - started
    stacked, classes = np.stack(labels), len(task.probabilities)
    regions = [
        count_boundary_regions(task.label, each, classes) for each in labels if task.count_regions
    ]
    return Refined(
        count_trimap_confusions(task.label, stacked, classes, task.widths),
        np.array(regions, dtype=np.int64),
        seconds,
        Pictures(stacked, np.stack(scores), np.stack(beliefs)) if scores else None,
    )
