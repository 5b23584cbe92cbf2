"""The unit of work of a worker process: one image through the CRF, scored after its iterations."""

import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.voc_layout import Pixels
from deeplab_bench.evaluation.crf.inference import CRFParameters, Floats, mean_field
from deeplab_bench.evaluation.crf.processes import in_processes
from deeplab_bench.evaluation.measures.boundaries import (
    boundary_intersection_and_union,
    trimap_confusions,
)
from deeplab_bench.evaluation.measures.confusion import Confusion


@dataclass(frozen=True)
class Task:
    """An image (H, W, 3) with its label (H, W) and class probabilities (C, H, W).

    ``widths``: of the trimaps, as in ``trimap_confusions``. ``boundary``: whether to count boundary
    regions. ``pictured``: the class of which to give back maps, none if None.
    """

    probabilities: NDArray[np.floating]
    image: Pixels
    label: Pixels
    parameters: CRFParameters
    iterations: Sequence[int]
    widths: Sequence[float]
    boundary: bool = False
    pictured: int | None = None


@dataclass(frozen=True)
class Pictures:
    """Labels (N, H, W) after each of N iterations, and one class's scores and beliefs."""

    labels: Pixels
    scores: Floats
    beliefs: Floats


@dataclass(frozen=True)
class Refined:
    """Confusion matrices (N, len(widths), C, C) after each of N iterations.

    ``boundary``: the intersection and union of boundary regions (N, 2, C), in pixels, empty where
    they were not asked for. ``seconds``: of inference, without scoring.
    """

    confusions: Confusion
    boundary: NDArray[np.int64]
    seconds: float
    pictures: Pictures | None


def refine(tasks: Iterable[Task], workers: int) -> Generator[Refined, None, None]:
    """Every image through the CRF in ``workers`` processes, in order, while tasks are drawn.

    Raises:
        CRFError: pydensecrf is not installed.
        WorkerError: a worker process was ended.
    """
    return in_processes(refined, tasks, workers)


def refined(task: Task) -> Refined:
    started = time.perf_counter()
    labels, scores, beliefs = [], [], []
    for score, belief in mean_field(
        task.probabilities, task.image, task.parameters, task.iterations
    ):
        labels.append(belief.argmax(axis=0).astype(np.uint8))
        if task.pictured is not None:
            scores.append(score[task.pictured])
            beliefs.append(belief[task.pictured])
    seconds = time.perf_counter() - started
    stacked, classes = np.stack(labels), len(task.probabilities)
    boundary = [
        boundary_intersection_and_union(task.label, each, classes)
        for each in labels
        if task.boundary
    ]
    return Refined(
        trimap_confusions(task.label, stacked, classes, task.widths),
        np.array(boundary, dtype=np.int64),
        seconds,
        Pictures(stacked, np.stack(scores), np.stack(beliefs)) if scores else None,
    )
