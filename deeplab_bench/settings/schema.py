"""What a stage is told: the settings of one experiment, every one of them resolved."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field

from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.settings.base import PositiveFloat, PositiveInt, Settings, SettingsError
from deeplab_bench.settings.training import Training


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
    """The values of which all combinations are scored on some training images."""

    images: PositiveInt
    w1: Ascending
    sigma_alpha: Ascending
    sigma_beta: Ascending


class CRF(Settings):
    """The fully connected CRF (``deeplab_bench.evaluation.crf``), with the papers' names.

    With ``search`` the first three are where the search begins. Results are given after each of
    ``iterations``, of which 0 is the network alone.
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


class Inference(Settings):
    """How a trained network is used on an image (DeepLabv3, Section 4.1 and Table 4).

    ``output_stride`` replaces the training's, and atrous rates follow; probabilities are averaged
    over ``scales`` of the image and, with ``flip``, its mirror images.
    """

    output_stride: OutputStride | None = None
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    flip: bool = False


class Phase(Settings):
    """A schedule, and the architecture's arguments under it."""

    arguments: dict[str, Any]
    training: Training


class Experiment(Settings):
    """One model under one profile, every setting resolved.

    ``then`` goes on from the result of the first phase.
    """

    profile: str
    model: str
    architecture: str
    arguments: dict[str, Any]
    training: Training
    then: Phase | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        first = Phase(arguments=self.arguments, training=self.training)
        return (first,) if self.then is None else (first, self.then)

    def arguments_for(self, inference: Inference) -> dict[str, Any]:
        """The arguments of the trained network at the output stride of ``inference``.

        Raises:
            SettingsError: the architecture has no output stride, or its rates cannot follow.
        """
        arguments = self.phases[-1].arguments
        if inference.output_stride is None:
            return arguments
        where = f"models.{self.model}"
        return at_output_stride(arguments, inference.output_stride, where)


class StageSettings(Settings):
    """All settings of a stage that works on one model."""

    experiment: Experiment
    inference: Inference | None = None
    crf: CRF | None = None

    def with_inference(self, inference: Inference) -> "StageSettings":
        return self.model_copy(update={"inference": inference})

    def with_crf(self, crf: CRF) -> "StageSettings":
        return self.model_copy(update={"crf": crf})


def at_output_stride(
    arguments: Mapping[str, Any], output_stride: int, where: str
) -> dict[str, Any]:
    """The arguments with another output stride; the atrous rates follow."""
    if "output_stride" not in arguments:
        raise SettingsError(
            f"{where}: the architecture has no output_stride to set to {output_stride}"
        )
    changed = dict(arguments) | {"output_stride": output_stride}
    if "atrous_rates" in arguments:
        changed["atrous_rates"] = rates_at(
            output_stride, arguments["atrous_rates"], arguments["output_stride"], where
        )
    return changed


def rates_at(output_stride: int, rates: list[int], given_for: int, where: str) -> list[int]:
    """The profile's atrous rates, ``given_for`` its output stride, at the model's.

    They double as the stride halves (DeepLabv3, Section 3.3).
    """
    scaled = [rate * given_for / output_stride for rate in rates]
    if any(rate != int(rate) for rate in scaled):
        raise SettingsError(
            f"{where}.output_stride {output_stride} turns the profile's atrous_rates {rates} "
            f"into {scaled}: give {where}.atrous_rates as whole numbers"
        )
    return [int(rate) for rate in scaled]
