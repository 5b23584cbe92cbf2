"""The settings of the fully connected CRF."""

from itertools import pairwise
from typing import Annotated, cast

from pydantic import AfterValidator, Field

from deeplab_bench.settings.base import PositiveFloat, PositiveInt, Settings
from deeplab_bench.settings.experiment import StageSettings


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(first >= second for first, second in pairwise(values)):
        raise ValueError("the values should ascend")
    return values


def _from_zero(iterations: tuple[int, ...]) -> tuple[int, ...]:
    if iterations[0] != 0:
        raise ValueError("the first should be 0, the network alone")
    return cast(tuple[int, ...], _ascending(iterations))


Ascending = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_ascending)]


class CRFSearch(Settings):
    """Values for a grid search."""

    images: PositiveInt
    """Training images on which each combination is scored."""
    w1: Ascending
    """Values of ``w1`` to try."""
    sigma_alpha: Ascending
    """Values of ``sigma_alpha`` to try."""
    sigma_beta: Ascending
    """Values of ``sigma_beta`` to try."""


class CRF(Settings):
    """The fully connected CRF (``deeplab_bench.evaluation.crf``), with the papers' names."""

    w1: PositiveFloat
    """The weight of the kernel that looks at position and colour."""
    sigma_alpha: PositiveFloat
    """Its width in pixels."""
    sigma_beta: PositiveFloat
    """Its width in colour, in levels of 0 to 255."""
    w2: PositiveFloat
    """The weight of the kernel that looks at position alone."""
    sigma_gamma: PositiveFloat
    """Its width in pixels."""
    iterations: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2), AfterValidator(_from_zero)
    ]
    """Numbers of iterations after which predictions are scored; 0 is the network alone."""
    search: CRFSearch | None = None
    """A grid search on training images, which starts from the values above."""


class CRFSettings(StageSettings):
    """All settings of the stage ``crf``."""

    crf: CRF
