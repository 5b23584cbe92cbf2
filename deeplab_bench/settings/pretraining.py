"""The settings of pretraining on images of one object each."""

from typing import Annotated, Any

from pydantic import Field, JsonValue

from deeplab_bench.settings.base import PositiveInt, Settings
from deeplab_bench.settings.experiment import Experiment

CLASSIFIER = "classifier"  # the architecture; it is none that a model of params.yaml may have


class Pretraining(Settings):
    """A profile's section ``pretraining``: a classification set, and how a network learns it.

    The profile's data set draws ``images`` for training and ``held_out_images`` for the reported
    accuracy, all of ``image_size`` pixels a side. ``training`` replaces keys of the profile's
    ``training``. The network sees whole images, not crops, and starts from random weights.
    """

    images: PositiveInt
    held_out_images: PositiveInt
    image_size: Annotated[int, Field(ge=32)]
    training: dict[str, Any] = Field(default_factory=dict)


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
