"""Benchmark of our CRF against pydensecrf, used as in its documentation."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import OURS, Benchmark, Implementation, Workload
from deeplab_bench.evaluation.crf import Task
from deeplab_bench.evaluation.crf.mean_field import (
    LEAST_PROBABILITY,
    iterate_mean_field,
    require_pydensecrf,
)
from studies.crf_workers import PARAMETERS, make_crf_task

CLASSES = 21
ITERATIONS = 10


def build_crf_benchmark(workload: Workload) -> Benchmark:
    """Build the benchmark of the CRF.

    Raises:
        CRFError: pydensecrf is not installed.
        ValueError: the labels of the two differ.
    """
    require_pydensecrf()
    task = make_crf_task(*workload.size, CLASSES)
    agreement = float((compute_own_labels(task) == compute_pydensecrf_labels(task)).mean())
    if agreement < 0.999:
        raise ValueError(f"the labels are equal in only {agreement:.2%} of the pixels")
    return Benchmark(
        "crf",
        f"{ITERATIONS} iterations on one image of {workload.crop} px and {CLASSES} classes, on one "
        f"processor core. The labels are equal in {agreement:.2%} of the pixels. Ours can also "
        "return the results of earlier iterations.",
        {
            OURS: lambda: Implementation(lambda: compute_own_labels(task)),
            "pydensecrf": lambda: Implementation(lambda: compute_pydensecrf_labels(task)),
        },
    )


def compute_own_labels(task: Task) -> NDArray[np.integer]:
    """Return the labels (H, W) after ``ITERATIONS``."""
    ((_, beliefs),) = iterate_mean_field(task.probabilities, task.image, PARAMETERS, (ITERATIONS,))
    return beliefs.argmax(axis=0)


def compute_pydensecrf_labels(task: Task) -> NDArray[np.integer]:
    """Return the labels (H, W) after ``ITERATIONS``."""
    from pydensecrf import densecrf
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = task.probabilities.shape
    field = densecrf.DenseCRF2D(width, height, classes)
    unary = unary_from_softmax(task.probabilities, clip=LEAST_PROBABILITY)
    field.setUnaryEnergy(np.ascontiguousarray(unary))
    normalised = {"normalization": densecrf.NORMALIZE_AFTER}
    field.addPairwiseGaussian(sxy=PARAMETERS.sigma_gamma, compat=PARAMETERS.w2, **normalised)
    field.addPairwiseBilateral(
        sxy=PARAMETERS.sigma_alpha,
        srgb=PARAMETERS.sigma_beta,
        rgbim=task.image,
        compat=PARAMETERS.w1,
        **normalised,
    )
    beliefs = np.array(field.inference(ITERATIONS))
    return beliefs.argmax(axis=0).reshape(height, width)
