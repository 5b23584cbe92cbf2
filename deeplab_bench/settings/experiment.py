"""The settings of one experiment: one model under one profile, completely resolved."""

from collections.abc import Collection, Mapping
from typing import Any

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.training import Training

# The arguments of architectures that are atrous rates of a head; they follow the output stride.
RATES = {"atrous_rate", "atrous_rates"}
PRETRAINED = "pretrained"  # the value of ``training.weights`` for those of the stage ``pretrain``


class Phase(Settings):
    """One phase of training: its schedule, the architecture's arguments in it, its split."""

    arguments: dict[str, Any]
    training: Training
    train_split: str = "train"


class Experiment(Settings):
    """All settings of one model under one profile.

    ``second_phase`` continues with the weights of the first phase.
    """

    profile: str
    model: str
    architecture: str
    arguments: dict[str, Any]
    training: Training
    second_phase: Phase | None = None
    process: Process = Process()

    @property
    def phases(self) -> tuple[Phase, ...]:
        """All phases of training, in their order."""
        first = Phase(arguments=self.arguments, training=self.training)
        return (first,) if self.second_phase is None else (first, self.second_phase)

    @property
    def weights(self) -> str:
        """``training.weights``, with the path of the file in place of ``pretrained``."""
        weights = self.training.weights
        return str(ProfileFiles(self.profile).pretrained) if weights == PRETRAINED else weights

    def arguments_at(self, output_stride: int | None) -> dict[str, Any]:
        """Return the arguments of the trained network at an output stride; None is its own.

        Raises:
            SettingsError: the architecture has no output stride, or its rates cannot follow.
        """
        arguments = self.phases[-1].arguments
        if output_stride is None:
            return arguments
        return change_output_stride(arguments, output_stride, f"models.{self.model}")


class StageSettings(Settings):
    """All settings of a stage that works on one model."""

    experiment: Experiment


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
    scaled = scale_rates(
        arguments, RATES & arguments.keys(), arguments["output_stride"], output_stride, where
    )
    return dict(arguments) | {"output_stride": output_stride} | scaled


def scale_rates(
    arguments: Mapping[str, Any], names: Collection[str], given_for: int, stride: int, where: str
) -> dict[str, Any]:
    """Convert the named atrous rates from the output stride ``given_for`` to ``stride``.

    The rates double if the stride is halved (DeepLabv3, Section 3.3). Those of a kernel of size 1
    have no meaning and stay.

    Raises:
        SettingsError: a rate is no longer a whole number.
    """
    changed: dict[str, Any] = {}
    for name in names if arguments.get("kernel_size") != 1 else ():
        given = arguments[name]
        rates = given if isinstance(given, list) else [given]
        scaled = [rate * given_for / stride for rate in rates]
        if any(rate != int(rate) for rate in scaled):
            raise SettingsError(
                f"{where}.output_stride {stride} turns {name} {given} of output_stride {given_for} "
                f"into {scaled}: give {where}.{name} as whole numbers"
            )
        whole = [int(rate) for rate in scaled]
        changed[name] = whole if isinstance(given, list) else whole[0]
    return changed
