"""Mean-field inference, step by step: the beliefs of any iteration come out of one pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.voc_layout import Pixels
from deeplab_bench.errors import UserError

LEAST_PROBABILITY = 1e-5

Floats = NDArray[np.float32]


class CRFError(UserError):
    """The CRF cannot be computed here; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class CRFParameters:
    """The pairwise energy of two pixels of different labels (DeepLabv2, Equation 3).

    ``w1 exp(-|p|^2 / (2 sigma_alpha^2) - |I|^2 / (2 sigma_beta^2)) + w2 exp(-|p|^2 / (2
    sigma_gamma^2))`` with p the difference of their positions in pixels and I that of their colours
    in levels of 0 to 255.
    """

    w1: float
    sigma_alpha: float
    sigma_beta: float
    w2: float
    sigma_gamma: float


def mean_field(
    probabilities: NDArray[np.floating],
    image: Pixels,
    parameters: CRFParameters,
    iterations: Sequence[int],
) -> Iterator[tuple[Floats, Floats]]:
    """Scores and beliefs, both (C, H, W), after each of the ascending ``iterations``.

    From probabilities (C, H, W) and an RGB image (H, W, 3). The beliefs are the softmax of the
    scores, which after 0 iterations are the probabilities' logarithms.

    Raises:
        CRFError: pydensecrf is not installed.
    """
    require_pydensecrf()
    from pydensecrf import densecrf, eigen

    shape = classes, height, width = probabilities.shape
    logs = np.log(np.clip(probabilities.astype(np.float32, order="C"), LEAST_PROBABILITY, 1))
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(-logs.reshape(classes, -1))
    # A pixel's messages are divided by the sum of its kernel. The formula has no such factor, the
    # authors' released code, after Kraehenbuehl's of 2011, does; pydensecrf's default is that of
    # 2013, symmetric, and would give the published weights another meaning at borders.
    divided = {"normalization": densecrf.NORMALIZE_AFTER}
    field.addPairwiseGaussian(sxy=parameters.sigma_gamma, compat=parameters.w2, **divided)
    field.addPairwiseBilateral(
        sxy=parameters.sigma_alpha,
        srgb=parameters.sigma_beta,
        rgbim=np.array(image, order="C"),
        compat=parameters.w1,
        **divided,
    )
    beliefs, _, scratch = field.startInference()
    # Not startInference's own, whose size Python never learns.
    scores = eigen.matrixXf(logs.reshape(classes, -1))
    done = 0
    for iteration in iterations:
        for _ in range(done, iteration):
            field.stepInference(beliefs, scores, scratch)
        done = iteration
        yield np.array(scores).reshape(shape), np.array(beliefs).reshape(shape)


def require_pydensecrf() -> None:
    """
    Raises:
        CRFError: pydensecrf is not installed.
    """
    if find_spec("pydensecrf") is None:
        raise CRFError("the CRF needs the package pydensecrf2: run `pip install pydensecrf2`")
