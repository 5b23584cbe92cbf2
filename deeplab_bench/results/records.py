"""Records: the schemas of all result files. Files are checked when written and when read."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deeplab_bench.errors import UserError, describe_first_error
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.writing import write_json

SIZES = ("small", "medium", "large")

Fraction = Annotated[float, Field(ge=0, le=1)]
Environment = dict[str, str | int | float | bool | None]


class RecordError(UserError):
    """A result file is missing or malformed. The message says which file and what to do."""


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
    """The mIoU of each size in ``SIZES``. The size of an object is the square root of its area."""

    edges_px: tuple[float, ...]
    miou: tuple[Fraction | None, Fraction | None, Fraction | None]


class Boundaries(Record):
    """The accuracy near boundaries.

    ``trimap_miou`` has one value for each width. ``distance_share`` is the width of the band of the
    boundary IoU, as a share of the image's diagonal.
    """

    trimap_widths_px: tuple[int, ...]
    trimap_miou: tuple[Fraction | None, ...]
    distance_share: float
    boundary_iou: dict[str, Fraction | None]
    boundary_miou: Fraction | None


class ContextRadius(Record):
    """The correct pixels and all pixels by context radius.

    ``largest_px`` is the largest radius of each bin in pixels. ``correct`` and ``total`` have one
    more bin, for larger radii.
    """

    largest_px: tuple[int, ...]
    correct: tuple[int, ...]
    total: tuple[int, ...]


class History(Record):
    """The mean loss up to each iteration since the one before; None where it was not finite.

    ``start_loss`` is the mean of the first iterations, divided by the sum of the weights if there
    are auxiliary losses.
    """

    iteration: tuple[int, ...]
    loss: tuple[float | None, ...]
    start_loss: float | None = None

    @model_validator(mode="after")
    def _as_long(self) -> "History":
        if len(self.iteration) != len(self.loss):
            raise ValueError(f"{len(self.iteration)} iterations but {len(self.loss)} losses")
        return self


class TrainingImages(Record):
    """The mIoU of a run on some of the images that it was trained on."""

    images: int
    miou: Fraction | None


class Scores(Record):
    """The metrics of predictions for all images of a split.

    ``images`` has, for each image, [class, intersection, union] in pixels.
    """

    classes: tuple[str, ...]
    metrics: Metrics
    iou: dict[str, Fraction | None]
    absent_classes: tuple[str, ...]
    object_size: ObjectSize
    boundaries: Boundaries
    context_radius: ContextRadius | None
    images: dict[str, tuple[tuple[int, int, int], ...]]

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


class EvaluationRecord(RunRecord, Scores):
    """The metrics of a run under one way of inference."""

    inference: str
    architecture: str
    settings: dict[str, Any]
    parameters: int
    training: History
    training_images: TrainingImages | None = None


class Source(Record):
    """The source that a stage was run from (``runtime.source``); None is unknown.

    ``date`` is the commit's day; older records have none.
    """

    commit: str | None
    date: str | None = None
    dirty: bool | None
    lock_sha256: str | None


NO_SOURCE = Source(commit=None, dirty=None, lock_sha256=None)  # of older records


class LabelFilesRecord(Scores):
    """The metrics of label files that another network predicted.

    ``variants`` are the mIoU under the scoring variants that label files suffice for; None where it
    is not defined. ``labels_sha256`` is a digest of all predicted pixels, ``code_sha256`` that of
    the code that scored them.
    """

    profile: str
    name: str
    data_sha256: str
    code_sha256: str
    labels_sha256: str
    source: Source
    variants: dict[str, Fraction | None]


class SourcedRecord(Record):
    """A record with the machine, and the sources of values by stage; none in older records."""

    environment: Environment
    sources: dict[str, Source] = Field(default_factory=dict)


class Fingerprint(Record):
    """Digests of the weights after an iteration, in hexadecimal digits.

    ``weights`` is of all of them. ``parameters`` and ``statistics`` have four digits for each layer
    of ``layers`` and of ``statistics``.
    """

    weights: str
    parameters: str
    statistics: str


class FingerprintRecord(RunRecord):
    """Fingerprints of a training, by iteration; 0 are the initial weights.

    ``layers`` describes every layer with parameters, in the order of their definition.
    ``statistics`` names the layers with statistics of the forward pass. ``losses`` are those of
    single iterations, exact; None where it was not finite.
    """

    layers: dict[str, str]
    statistics: tuple[str, ...]
    losses: dict[int, float | None]
    points: dict[int, Fingerprint]


class CurveRecord(RunRecord):
    """The validation curve of a training: loss per pixel and mIoU after some iterations.

    They are on ``images`` images, evenly picked from the validation split; None where one is not
    defined. The curve is empty if the network could not be validated while it was trained.
    """

    images: int
    iteration: tuple[int, ...]
    loss: tuple[float | None, ...]
    miou: tuple[Fraction | None, ...]

    @model_validator(mode="after")
    def _as_long(self) -> "CurveRecord":
        if not len(self.iteration) == len(self.loss) == len(self.miou):
            raise ValueError("iteration, loss and miou are not equally long")
        return self


class RunDifference(Record):
    """How far two trainings of a run are apart.

    ``loss`` is the relative difference of the first loss that differs; None if the trainings began
    with other weights, of a pretraining that was made again. ``miou`` is the difference at the end.
    """

    settings_sha256: str
    loss: float | None
    miou: float


class ToleranceRecord(Record):
    """The differences of a profile's runs between two instruction sets, by run.

    The tolerance is the largest of them: of ``n`` runs, a further one exceeds it once in ``n + 1``.
    """

    profile: str
    instruction_sets: tuple[str, str]
    environment: Environment
    runs: Annotated[dict[str, RunDifference], Field(min_length=1)]

    @property
    def loss(self) -> float | None:
        return max((run.loss for run in self.runs.values() if run.loss is not None), default=None)

    @property
    def miou(self) -> float:
        return max(abs(run.miou) for run in self.runs.values())


class Pretrained(Record):
    """A pretrained classification network: what it was made from, and how well it does.

    ``accuracy`` is the share of held-out images whose class it names.
    """

    settings: dict[str, Any]
    data_sha256: str
    code_sha256: str
    weights_sha256: str
    parameters: int
    classes: tuple[str, ...]
    accuracy: Fraction
    training: History


class PretrainingRecord(Record):
    """The result of the stage ``pretrain``; None if the profile has no pretraining."""

    profile: str
    result: Pretrained | None


class PretrainingTime(SourcedRecord):
    training_seconds: float


class PretrainingTimingRecord(Record):
    profile: str
    result: PretrainingTime | None


class TimingRecord(SourcedRecord):
    training_seconds: float
    evaluation_seconds: float


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
    """The cost of one image at one output stride.

    ``relative_latency`` is the latency divided by that of the reference network.
    """

    output_stride: int | None
    parameters: int
    flops: int
    peak_memory_mib: float
    latency_ms: Latency
    relative_latency: Quartiles


class TrainingSpeed(Record):
    """The cost of one training step.

    ``relative_step`` is its time divided by that of the reference network's forward pass of the
    same number of crops.
    """

    crop_size: tuple[int, int]
    batch_size: int
    precision: str
    step_ms: StepTimes
    relative_step: Quartiles
    images_per_second: float
    peak_memory_mib: float


class SpeedRecord(SourcedRecord):
    """The cost of a model on one machine.

    The first of ``output_strides`` is that of training. ``images_per_second`` is measured at this
    output stride, by batch size. ``training`` is None if a batch does not fit into the memory.
    """

    profile: str
    model: str
    hardware: str
    input_size: tuple[int, int]
    output_strides: Annotated[tuple[Cost, ...], Field(min_length=1)]
    images_per_second: Annotated[dict[str, float], Field(min_length=1)]
    training: TrainingSpeed | None
    code_sha256: dict[str, str]

    @property
    def trained(self) -> Cost:
        """The cost at the output stride of training. The reported accuracy belongs to it."""
        return self.output_strides[0]


class CRFScores(Record):
    """The scores after one iteration. ``trimap_miou`` has one value for each width of the run."""

    miou: Fraction
    pixel_accuracy: Fraction
    trimap_miou: tuple[Fraction | None, ...]
    boundary_iou: dict[str, Fraction | None]
    boundary_miou: Fraction | None


class SearchRecord(Record):
    images: int


class CRFRecord(RunRecord):
    """The scores of a run after each iteration of the CRF.

    ``search`` is None if the parameters were not searched. ``distance_share`` is that of
    ``Boundaries``.
    """

    settings: dict[str, Any]
    parameters: dict[str, float]
    search: SearchRecord | None
    trimap_widths_px: tuple[int, ...]
    distance_share: float
    pictured: tuple[int, ...]
    iterations: dict[str, CRFScores]


class CRFTimingRecord(SourcedRecord):
    """The seconds that all iterations of the CRF take per image, in one process."""

    seconds_per_image: float


class AuditRecord(RunRecord):
    """The mIoU of a run under the protocol and every variant; None where it is not defined."""

    crop_size: tuple[int, int]
    protocol: Fraction
    variants: dict[str, Fraction | None]


class Theory(Record):
    """The theoretical field of the output map, and the pixels that the middle logit sees."""

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
    """Check a result against ``schema`` and write it.

    Raises:
        ValidationError: the result does not fit: the code that made it has a bug.
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
        raise RecordError(f"{path}: {describe_first_error(error)}: run `dvc repro`") from None
