"""Mean-field inference, step by step: one run gives the maps after every iteration.

The terms are those of DeepLabv2, Figure 5. The *score map* (C, H, W) is the input of the softmax:
the values of each class. The *belief map* (C, H, W) is the output of the softmax: probabilities.
The code calls them ``scores`` and ``beliefs``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from deeplab_bench.data.pixels import Pixels
from deeplab_bench.errors import UserError

LEAST_PROBABILITY = 1e-5

Floats = NDArray[np.float32]


class CRFError(UserError):
    """The CRF cannot be computed here; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class CRFParameters:
    """The pairwise energy of two pixels with different labels (DeepLabv2, Equation 3).

    ``w1 exp(-|p|^2 / (2 sigma_alpha^2) - |I|^2 / (2 sigma_beta^2)) + w2 exp(-|p|^2 / (2
    sigma_gamma^2))``, where p is the difference of their positions in pixels and I the difference
    of their colours, with values of 0 to 255.
    """

    w1: float
    sigma_alpha: float
    sigma_beta: float
    w2: float
    sigma_gamma: float


def iterate_mean_field(
    probabilities: NDArray[np.floating],
    image: Pixels,
    parameters: CRFParameters,
    iterations: Sequence[int],
) -> Iterator[tuple[Floats, Floats]]:
    """Yield score map and belief map, both (C, H, W), after each of the ascending ``iterations``.

    The input is class probabilities (C, H, W) and an RGB image (H, W, 3). After 0 iterations the
    scores are the logarithms of the probabilities.

    Raises:
        CRFError: pydensecrf is not installed.
    """
    require_pydensecrf()
    from pydensecrf import densecrf, eigen

    shape = classes, height, width = probabilities.shape
    logs = np.log(np.clip(probabilities.astype(np.float32, order="C"), LEAST_PROBABILITY, 1))
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(-logs.reshape(classes, -1))
    # Divide the messages to a pixel by the sum of its kernel. The formula has no such factor, but
    # the authors' code has it, as has Kraehenbuehl's code of 2011. The default of pydensecrf is the
    # symmetric factor of 2013: with it the published weights mean something else at borders.
    normalised = {"normalization": densecrf.NORMALIZE_AFTER}
    field.addPairwiseGaussian(sxy=parameters.sigma_gamma, compat=parameters.w2, **normalised)
    field.addPairwiseBilateral(
        sxy=parameters.sigma_alpha,
        srgb=parameters.sigma_beta,
        rgbim=np.array(image, order="C"),
        compat=parameters.w1,
        **normalised,
    )
    beliefs, _, scratch = field.startInference()
    # The third array of startInference has no size that Python can read.
    scores = eigen.matrixXf(logs.reshape(classes, -1))
    done = 0
    for iteration in iterations:
        for _ in range(done, iteration):
            field.stepInference(beliefs, scores, scratch)
        done = iteration
        yield np.array(scores).reshape(shape), np.array(beliefs).reshape(shape)


def require_pydensecrf() -> None:
    """Check that pydensecrf is installed.

    Raises:
        CRFError: pydensecrf is not installed.
    """
    if find_spec("pydensecrf") is None:
        raise CRFError("the CRF needs the package pydensecrf2: run `pip install pydensecrf2`")
