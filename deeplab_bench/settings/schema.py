"""The settings that stages read: those of one experiment, all of them resolved."""

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


PLAIN = "plain"  # the way of inference of the accuracy table


class Inference(Settings):
    """A way to use a trained network on an image (DeepLabv3, Section 4.1 and Table 4).

    ``output_stride`` replaces that of training, and the atrous rates are scaled with it.
    Probabilities are averaged over ``scales`` of the image and, with ``flip``, over the mirror
    image at each scale.
    """

    output_stride: OutputStride | None = None
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    flip: bool = False


class Phase(Settings):
    """One phase of training: its schedule, the architecture's arguments in it, its split."""

    arguments: dict[str, Any]
    training: Training
    train_split: str = "train"


class Experiment(Settings):
    """All settings of one model under one profile.

    ``second_phase`` goes on with the weights of the first.
    """

    profile: str
    model: str
    architecture: str
    arguments: dict[str, Any]
    training: Training
    second_phase: Phase | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases of training, in their order."""
        first = Phase(arguments=self.arguments, training=self.training)
        return (first,) if self.second_phase is None else (first, self.second_phase)

    def arguments_for(self, inference: Inference) -> dict[str, Any]:
        """Return the arguments of the trained network at the output stride of ``inference``.

        Raises:
            SettingsError: the architecture has no output stride, or its rates cannot follow.
        """
        arguments = self.phases[-1].arguments
        if inference.output_stride is None:
            return arguments
        where = f"models.{self.model}"
        return change_output_stride(arguments, inference.output_stride, where)


class StageSettings(Settings):
    """All settings of a stage that works on one model."""

    experiment: Experiment
    inference: Inference | None = None
    crf: CRF | None = None

    def with_inference(self, inference: Inference) -> "StageSettings":
        return self.model_copy(update={"inference": inference})

    def with_crf(self, crf: CRF) -> "StageSettings":
        return self.model_copy(update={"crf": crf})


def change_output_stride(
    arguments: Mapping[str, Any], output_stride: int, where: str
) -> dict[str, Any]:
    """Change the output stride of the arguments, and scale the atrous rates with it.

    Raises:
        SettingsError: there is no output stride, or a rate is no longer a whole number.
    """
    if "output_stride" not in arguments:
        raise SettingsError(
            f"{where}: the architecture has no output_stride to set to {output_stride}"
        )
    changed = dict(arguments) | {"output_stride": output_stride}
    if "atrous_rates" in arguments:
        changed["atrous_rates"] = scale_atrous_rates(
            output_stride, arguments["atrous_rates"], arguments["output_stride"], where
        )
    return changed


def scale_atrous_rates(
    output_stride: int, rates: list[int], given_for: int, where: str
) -> list[int]:
    """Convert atrous rates from the output stride ``given_for`` to another one.

    The rates double if the stride is halved (DeepLabv3, Section 3.3).

    Raises:
        SettingsError: a rate is no longer a whole number.
    """
    scaled = [rate * given_for / output_stride for rate in rates]
    if any(rate != int(rate) for rate in scaled):
        raise SettingsError(
            f"{where}.output_stride {output_stride} turns the profile's atrous_rates {rates} "
            f"into {scaled}: give {where}.atrous_rates as whole numbers"
        )
    return [int(rate) for rate in scaled]
