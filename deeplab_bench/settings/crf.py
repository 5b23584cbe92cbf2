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
    """Values for a grid search; each combination is scored on ``images`` training images."""

    images: PositiveInt
    w1: Ascending
    sigma_alpha: Ascending
    sigma_beta: Ascending


class CRF(Settings):
    """The fully connected CRF (``deeplab_bench.evaluation.crf``), with the papers' names.

    With ``search``, the search starts from ``w1``, ``sigma_alpha`` and ``sigma_beta``. Predictions
    are scored after each number of ``iterations``; 0 is the network alone.
    """

    w1: PositiveFloat
    sigma_alpha: PositiveFloat
    sigma_beta: PositiveFloat
    w2: PositiveFloat
    sigma_gamma: PositiveFloat
    iterations: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2), AfterValidator(_from_zero)
    ]
    search: CRFSearch | None = None


class CRFSettings(StageSettings):
    """All settings of the stage ``crf``."""

    crf: CRF
