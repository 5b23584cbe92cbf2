"""Records: the schema of every result file, for those who write it and those who read it."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deeplab_bench.errors import UserError
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.writing import write_json

SIZES = ("small", "medium", "large")

Fraction = Annotated[float, Field(ge=0, le=1)]
Environment = dict[str, str | int | float | bool | None]


class RecordError(UserError):
    """A result file that is missing or malformed; the message says which, and what to do."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class RunRecord(Record):
    """The part that all records of a run have in common.

    ``trained_on_val``: the training saw images of val, so that scores on it are of no worth.
    """

    profile: str
    model: str
    seed: int
    provenance: Provenance
    trained_on_val: bool = False


class Metrics(Record):
    miou: Fraction
    pixel_accuracy: Fraction
    mean_accuracy: Fraction
    frequency_weighted_iou: Fraction


class ObjectSize(Record):
    """The mIoU by object size, in the order of ``SIZES``; the size is the root of the area."""

    edges_px: tuple[float, ...]
    miou: tuple[Fraction | None, Fraction | None, Fraction | None]


class Boundaries(Record):
    """``trimap_miou`` in the order of the widths; ``distance_share`` is of the image's diagonal."""

    trimap_widths_px: tuple[int, ...]
    trimap_miou: tuple[Fraction | None, ...]
    distance_share: float
    boundary_iou: dict[str, Fraction | None]
    boundary_miou: Fraction | None


class ContextRadius(Record):
    """Pixels found and all by context radius, one more than there are largest radii: those beyond.

    Radii are in pixels.
    """

    largest_px: tuple[int, ...]
    correct: tuple[int, ...]
    total: tuple[int, ...]


class History(Record):
    """``loss`` is None where it was not finite."""

    iteration: tuple[int, ...]
    loss: tuple[float | None, ...]

    @model_validator(mode="after")
    def _as_long(self) -> "History":
        if len(self.iteration) != len(self.loss):
            raise ValueError(f"{len(self.iteration)} iterations but {len(self.loss)} losses")
        return self


class EvaluationRecord(RunRecord):
    """The metrics of a run under the way of inference of this name."""

    inference: str
    architecture: str
    settings: dict[str, Any]
    parameters: int
    classes: tuple[str, ...]
    metrics: Metrics
    iou: dict[str, Fraction | None]
    absent_classes: tuple[str, ...]
    object_size: ObjectSize
    boundaries: Boundaries
    context_radius: ContextRadius | None
    images: dict[str, tuple[tuple[int, int, int], ...]]
    training: History

    @field_validator("iou")
    @classmethod
    def _of_every_class(cls, iou: dict[str, Any], info: Any) -> dict[str, Any]:
        if list(iou) != list(info.data.get("classes", iou)):
            raise ValueError(f"it is of {list(iou)}, the classes are {list(info.data['classes'])}")
        return iou

    @field_validator("images")
    @classmethod
    def _of_known_classes(cls, images: dict[str, Any], info: Any) -> dict[str, Any]:
        classes = len(info.data.get("classes", ()))
        for name, entries in images.items():
            for index, intersection, union in entries:
                if not (0 <= index < classes and 0 <= intersection <= union):
                    found = [index, intersection, union]
                    raise ValueError(f"{name} has {found}, not [class, intersection, union]")
        return images

    def class_pixels(self) -> NDArray[np.int64]:
        """Return the intersections and unions of every image, (2, images, C)."""
        pixels = np.zeros((2, len(self.images), len(self.classes)), dtype=np.int64)
        for row, entries in enumerate(self.images.values()):
            for index, *both in entries:
                pixels[:, row, index] = both
        return pixels


class TimingRecord(Record):
    training_seconds: float
    evaluation_seconds: float
    environment: Environment


class Quartiles(Record):
    p25: float
    p50: float
    p75: float


class StepTimes(Quartiles):
    samples: int


class Latency(StepTimes):
    p90: float
    p99: float


class Cost(Record):
    """The cost of one image at one output stride; ``relative_latency`` is over the reference's."""

    output_stride: int | None
    parameters: int
    flops: int
    peak_memory_mib: float
    latency_ms: Latency
    relative_latency: Quartiles


class TrainingSpeed(Record):
    """``relative_step`` is over the reference network's forward pass of as many crops."""

    crop_size: tuple[int, int]
    batch_size: int
    precision: str
    step_ms: StepTimes
    relative_step: Quartiles
    images_per_second: float
    peak_memory_mib: float


class SpeedRecord(Record):
    """``output_strides`` begin with that of the training, of which ``images_per_second`` is.

    The latter is by batch size. ``training`` is None where a batch does not fit into the memory.
    """

    profile: str
    model: str
    hardware: str
    input_size: tuple[int, int]
    output_strides: Annotated[tuple[Cost, ...], Field(min_length=1)]
    images_per_second: Annotated[dict[str, float], Field(min_length=1)]
    training: TrainingSpeed | None
    code_sha256: dict[str, str]
    environment: Environment

    @property
    def trained(self) -> Cost:
        """The cost at the output stride of the training, which the accuracy belongs to."""
        return self.output_strides[0]

    @property
    def best_batch(self) -> str:
        """The batch size of the highest throughput."""
        return max(self.images_per_second, key=self.images_per_second.__getitem__)


class CRFScores(Record):
    """After one iteration; ``trimap_miou`` in the order of the run's widths."""

    miou: Fraction
    pixel_accuracy: Fraction
    trimap_miou: tuple[Fraction | None, ...]
    boundary_iou: dict[str, Fraction | None]
    boundary_miou: Fraction | None


class SearchRecord(Record):
    images: int


class CRFRecord(RunRecord):
    """The scores of a run after each iteration of the CRF; ``search`` is None without a search.

    ``distance_share`` is of the image's diagonal.
    """

    settings: dict[str, Any]
    parameters: dict[str, float]
    search: SearchRecord | None
    trimap_widths_px: tuple[int, ...]
    distance_share: float
    pictured: tuple[int, ...]
    iterations: dict[str, CRFScores]


class CRFTimingRecord(Record):
    """``seconds_per_image``: of all iterations, in one process."""

    seconds_per_image: float
    environment: Environment


class AuditRecord(RunRecord):
    """A run's mIoU under the protocol and under every rule, None where a rule has no meaning."""

    crop_size: tuple[int, int]
    protocol: Fraction
    rules: dict[str, Fraction | None]


class Theory(Record):
    """The theoretical field of the network's map, and what the middle pixel of an image sees."""

    size_px: int | None
    stride_px: int
    first_pixel: tuple[int, int]
    last_pixel: tuple[int, int]
    share: Fraction


class Effective(Record):
    size_px: float
    half_px: int
    share: Fraction


class BeforeAndAfter(Record):
    threshold: float
    before: Effective
    after: Effective


class ReceptiveFieldRecord(RunRecord):
    """A model's receptive field, measured on ``images`` of ``image_size`` (height, width)."""

    architecture: str
    image_size: tuple[int, int]
    images: int
    theoretical: Theory
    effective: BeforeAndAfter


Loaded = TypeVar("Loaded", bound=Record)


def write_record(path: Path, schema: type[Record], content: dict[str, Any]) -> None:
    """Write a result, once it is what ``schema`` says.

    Raises:
        ValidationError: it is not, which is a mistake in the code that made it.
    """
    schema.model_validate_json(json.dumps(content, allow_nan=False))
    write_json(path, content)


def read_record(path: Path, schema: type[Loaded]) -> Loaded:
    """Read a result.

    Raises:
        RecordError: the file is missing or malformed.
    """
    try:
        return schema.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RecordError(f"{path} is missing: run `dvc repro`") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise RecordError(f"{path}: {key}: {first['msg']}: run `dvc repro`") from None
