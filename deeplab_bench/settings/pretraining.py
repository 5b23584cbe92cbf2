"""The settings of pretraining on images of one object each."""

from typing import Annotated, Any

from pydantic import Field, JsonValue

from deeplab_bench.settings.base import PositiveInt, Settings
from deeplab_bench.settings.experiment import Experiment

CLASSIFIER = "classifier"  # the architecture; it is none that a model of params.yaml may have


class Pretraining(Settings):
    """A profile's section ``pretraining``: a classification set, and how a network learns it.

    The profile's data set draws the images. The network sees them whole, not in crops, and starts
    from random weights.
    """

    images: PositiveInt
    """Images for training."""
    held_out_images: PositiveInt
    """Other images, for the accuracy that the page shows."""
    image_size: Annotated[int, Field(ge=32)]
    """The side of an image in pixels."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Keys that replace those of the profile's ``training``."""


class PretrainingTask(Settings):
    """The same, resolved; ``experiment`` is the training of the classification network."""

    data: dict[str, JsonValue]
    images: int
    held_out_images: int
    image_size: int
    experiment: Experiment


class PretrainingSettings(Settings):
    """All settings of the stage ``pretrain``; the task is None if the profile has none."""

    task: PretrainingTask | None = None
