"""The settings of the ways of inference."""

from typing import Annotated

from pydantic import Field

from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.settings.base import PositiveFloat, Settings
from deeplab_bench.settings.experiment import StageSettings

PLAIN = "plain"  # the way of inference of the accuracy table


class Inference(Settings):
    """A way to use a trained network on an image (DeepLabv3, Section 4.1 and Table 4)."""

    output_stride: OutputStride | None = None
    """In place of that of training; the atrous rates are scaled with it."""
    scales: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (1.0,)
    """Scales of the image over which probabilities are averaged."""
    flip: bool = False
    """Whether they are averaged over the mirror image at each scale, too."""


class EvaluationSettings(StageSettings):
    """All settings of the stage ``evaluate``."""

    inference: Inference
