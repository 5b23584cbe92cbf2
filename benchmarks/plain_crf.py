"""The CRF as the benchmark runs it, and pydensecrf as its documentation runs it."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.comparison import OURS, Benchmark, Contender, Settings
from deeplab_bench.evaluation.crf import Task
from deeplab_bench.evaluation.crf.mean_field import (
    LEAST_PROBABILITY,
    iterate_mean_field,
    require_pydensecrf,
)
from studies.crf_workers import PARAMETERS, made_up

CLASSES = 21
ITERATIONS = 10


def crf(settings: Settings) -> Benchmark:
    """
    Raises:
        CRFError: pydensecrf is not installed.
        ValueError: the two disagree.
    """
    require_pydensecrf()
    task = made_up(*settings.size, CLASSES)
    agreement = float((own_labels(task) == plain_labels(task)).mean())
    if agreement < 0.999:
        raise ValueError(f"the labels agree in {agreement:.2%} of the pixels only")
    return Benchmark(
        "crf",
        f"{ITERATIONS} iterations on an image of {settings.crop} px and {CLASSES} classes, on one "
        f"processor; the labels agree in {agreement:.2%} of the pixels. Ours gives the beliefs of "
        "any iteration on the way.",
        {
            OURS: lambda: Contender(lambda: own_labels(task)),
            "pydensecrf": lambda: Contender(lambda: plain_labels(task)),
        },
    )


def own_labels(task: Task) -> NDArray[np.integer]:
    ((_, beliefs),) = iterate_mean_field(task.probabilities, task.image, PARAMETERS, (ITERATIONS,))
    return beliefs.argmax(axis=0)


def plain_labels(task: Task) -> NDArray[np.integer]:
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
