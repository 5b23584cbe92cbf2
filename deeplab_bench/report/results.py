"""The result files of a profile: what is declared is read and checked, all else on disk ignored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deeplab_bench.errors import UserError
from deeplab_bench.report import statistics
from deeplab_bench.results.files import (
    RESULTS,
    audit_file,
    crf_file,
    crf_timing_file,
    inference_file,
    receptive_field_file,
    run_file,
    speed_file,
    timing_file,
)
from deeplab_bench.results.provenance import run_code_sha256, settings_sha256
from deeplab_bench.settings.params import Params

SIZES = ("small", "medium", "large")

Fraction = Annotated[float, Field(ge=0, le=1)]
Environment = dict[str, str | int | float | bool | None]


class ReportError(UserError):
    """A report cannot be made; the message is one line that says what to do."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class Metrics(Record):
    miou: Fraction
    pixel_accuracy: Fraction
    mean_accuracy: Fraction
    frequency_weighted_iou: Fraction


class ObjectSize(Record):
    """By the square root of an object's area, in pixels; ``miou`` in the order of ``SIZES``."""

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


class Run(Record):
    profile: str
    model: str
    seed: int
    architecture: str
    settings: dict[str, Any]
    provenance: dict[str, str]
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
    inference: str | None = None

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
        """Every image's intersections and unions, (2, images, C)."""
        pixels = np.zeros((2, len(self.images), len(self.classes)), dtype=np.int64)
        for row, entries in enumerate(self.images.values()):
            for index, *both in entries:
                pixels[:, row, index] = both
        return pixels


class Timing(Record):
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
    """Of one image at one output stride; ``relative_latency`` is over the reference network's."""

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


class Speed(Record):
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
    environment: Environment

    @property
    def trained(self) -> Cost:
        """At the output stride of the training, as the accuracy is."""
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


class CRFSearch(Record):
    images: int


class CRFRun(Record):
    """What the CRF makes of a run, by iteration; ``search`` is None where parameters were given.

    ``distance_share`` is of the image's diagonal.
    """

    profile: str
    model: str
    seed: int
    settings: dict[str, Any]
    provenance: dict[str, str]
    parameters: dict[str, float]
    search: CRFSearch | None
    trimap_widths_px: tuple[int, ...]
    distance_share: float
    pictured: tuple[int, ...]
    iterations: dict[str, CRFScores]


class CRFTiming(Record):
    """``seconds_per_image``: of all iterations, in one process."""

    seconds_per_image: float
    environment: Environment


class Audit(Record):
    """A run's mIoU under the protocol and under every rule, None where a rule has no meaning."""

    profile: str
    model: str
    seed: int
    provenance: dict[str, str]
    crop_size: tuple[int, int]
    protocol: Fraction
    rules: dict[str, Fraction | None]


class Theory(Record):
    """Of a position of the network's map; pixels and share are what the middle of an image sees."""

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


class FieldRun(Record):
    """A model's receptive field, measured on ``images`` of ``image_size`` (height, width)."""

    profile: str
    model: str
    seed: int
    architecture: str
    provenance: dict[str, str]
    image_size: tuple[int, int]
    images: int
    theoretical: Theory
    effective: BeforeAndAfter


# The module that makes a record, and the stage that has to run again for a new one.
MADE_BY = {
    Run: ("deeplab_bench.evaluation.evaluate", "train"),
    CRFRun: ("deeplab_bench.evaluation.crf.evaluate", "crf"),
    FieldRun: ("deeplab_bench.analysis.effective_field", "receptive_field"),
    Audit: ("deeplab_bench.evaluation.protocol_audit", "audit"),
}


@dataclass(frozen=True)
class Results:
    """All of a profile's results, runs and speeds in declared order."""

    params: Params
    profile: str
    runs: list[Run]
    timings: list[Timing]
    speeds: list[Speed] = field(default_factory=list)
    inferences: list[Run] = field(default_factory=list)
    crf_runs: list[CRFRun] = field(default_factory=list)
    crf_timings: list[CRFTiming] = field(default_factory=list)
    fields: list[FieldRun] = field(default_factory=list)
    audits: list[Audit] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return RESULTS / self.profile

    @property
    def models(self) -> tuple[str, ...]:
        return self.params.run.models

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.params.run.seeds

    @property
    def generated(self) -> bool:
        """Whether the images are the project's own, free to be shown."""
        return self.params.profile[self.profile].data.generated

    @cached_property
    def resampled(self) -> pd.DataFrame:
        """mIoU in percent on each resample of the images, by model, the mean over its seeds."""
        return _resampled(self.runs, "model")

    @cached_property
    def resampled_inferences(self) -> pd.DataFrame:
        """The same, on the same resamples, by way of inference and model."""
        return _resampled(self.inferences, ["inference", "model"])

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Every pair of models, see ``statistics.compare``; differences in points."""
        by_seed = self.scores().pivot(index="seed", columns="model", values="miou")
        return statistics.compare(by_seed[list(self.models)], self.resampled, self.images)

    @property
    def images(self) -> int:
        return len(self.runs[0].images)

    def scores(self) -> pd.DataFrame:
        """A row per run: ``model``, ``seed``, and every score in percent."""
        return pd.DataFrame([_scores(run) for run in self.runs])

    def inference_scores(self) -> pd.DataFrame:
        """The same of every run under every other way of inference, in the column ``inference``."""
        rows = [{"inference": run.inference, **_scores(run)} for run in self.inferences]
        return pd.DataFrame(rows)

    def crf_scores(self) -> pd.DataFrame:
        """A row per run and iteration of the CRF, every score in percent.

        ``gain`` is the mIoU beyond the network's own.
        """
        return pd.DataFrame([row for run in self.crf_runs for row in _crf_scores(run)])

    def refined_scores(self) -> pd.DataFrame:
        """The same after the last iteration alone."""
        scores = self.crf_scores()
        return scores[scores["iteration"] == scores["iteration"].max()]

    def audit_scores(self) -> pd.DataFrame:
        """A row per audited run and rule: ``miou`` in percent, ``gain`` beyond the protocol's."""
        return pd.DataFrame([row for audit in self.audits for row in _audit_scores(audit)])

    def radius_scores(self) -> pd.DataFrame:
        """A row per run and context radius: ``largest_px``, ``accuracy`` in percent, ``pixels``.

        Pixels of the ground and those beyond the largest radius are left out.
        """
        return pd.DataFrame([row for run in self.runs for row in _radius_scores(run)])


def load_results(params: Params, profile: str) -> Results:
    """
    Raises:
        ReportError: a declared file is missing, malformed, or of something else.
    """
    if profile not in params.profile:
        raise ReportError(f"profile {profile!r} is not in params.yaml: {', '.join(params.profile)}")
    runs = load_runs(params, profile)
    return Results(
        params,
        profile,
        runs,
        load_timings(params, profile),
        load_speeds(params, profile),
        load_inferences(params, profile, runs[0]),
        load_crf_runs(params, profile),
        [
            _load(crf_timing_file(profile, *run), CRFTiming)
            for run in _declared(params, params.run.crf)
        ],
        load_fields(params, profile),
        load_audits(params, profile),
    )


def load_runs(params: Params, profile: str) -> list[Run]:
    runs: list[Run] = []
    for model, seed in _declared(params, params.run.models):
        path = run_file(profile, model, seed)
        run = _load_current(path, Run, params, profile, model, seed)
        runs.append(run)
        _require_equal_data(path, run, runs[0])
    if not runs:
        raise ReportError("params.yaml: run.models and run.seeds need an entry each")
    return runs


def load_crf_runs(params: Params, profile: str) -> list[CRFRun]:
    runs: list[CRFRun] = []
    for model, seed in _declared(params, params.run.crf):
        path = crf_file(profile, model, seed)
        run = _load_current(path, CRFRun, params, profile, model, seed)
        if run.settings != params.crf(profile).model_dump(mode="json"):
            raise ReportError(f"{path} is of other CRF settings than there are: run `dvc repro`")
        runs.append(run)
    return runs


def load_audits(params: Params, profile: str) -> list[Audit]:
    return [
        _load_current(audit_file(profile, model, seed), Audit, params, profile, model, seed)
        for model, seed in _declared(params, params.run.audit)
    ]


def load_timings(params: Params, profile: str) -> list[Timing]:
    return [
        _load(timing_file(profile, *run), Timing) for run in _declared(params, params.run.models)
    ]


def load_speeds(params: Params, profile: str) -> list[Speed]:
    speeds = []
    for hardware in params.run.hardware:
        for model in params.run.models:
            path = speed_file(profile, hardware, model)
            speed = _load(path, Speed)
            _require(path, speed, profile=profile, hardware=hardware, model=model)
            speeds.append(speed)
    return speeds


def load_inferences(params: Params, profile: str, first: Run) -> list[Run]:
    runs = []
    for inference in params.run.inference:
        settings = params.inference[inference].model_dump(mode="json")
        for model, seed in _declared(params, params.run.models):
            path = inference_file(profile, inference, model, seed)
            run = _load_current(path, Run, params, profile, model, seed, inference=inference)
            if run.settings["inference"] != settings:
                raise ReportError(f"{path} is of another inference.{inference}: run `dvc repro`")
            _require_equal_data(path, run, first)
            runs.append(run)
    return runs


def load_fields(params: Params, profile: str) -> list[FieldRun]:
    seed = params.run.seeds[0]
    return [
        _load_current(receptive_field_file(profile, model), FieldRun, params, profile, model, seed)
        for model in params.run.models
    ]


def write(path: Path, content: bytes) -> None:
    """Write a file that under this name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _declared(params: Params, models: Iterable[str]) -> Iterable[tuple[str, int]]:
    return product(models, params.run.seeds)


def _resampled(runs: Sequence[Run], by: str | list[str]) -> pd.DataFrame:
    pixels = np.stack([run.class_pixels() for run in runs], axis=1)
    names = pd.DataFrame([{"inference": run.inference, "model": run.model} for run in runs])
    mious = pd.DataFrame(
        100 * statistics.resampled_miou(*pixels).T, pd.MultiIndex.from_frame(names)
    )
    return mious.groupby(level=by, sort=False).mean().T


def _scores(run: Run) -> dict[str, Any]:
    by_size = {f"miou_{s}": v for s, v in zip(SIZES, run.object_size.miou, strict=True)}
    fractions = run.metrics.model_dump() | by_size | {f"iou_{c}": v for c, v in run.iou.items()}
    near = run.boundaries
    fractions |= {"boundary_miou": near.boundary_miou}
    percents = {k: _percent(v) for k, v in fractions.items()}
    trimaps = _trimaps(near.trimap_widths_px, near.trimap_miou)
    return {"model": run.model, "seed": run.seed} | percents | trimaps


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def _trimaps(widths: Iterable[int], miou: Iterable[float | None]) -> dict[str, float]:
    return {f"trimap_{w}_px": _percent(v) for w, v in zip(widths, miou, strict=True)}


def _crf_scores(run: CRFRun) -> Iterable[dict[str, Any]]:
    network = run.iterations["0"].miou
    for iteration, scores in run.iterations.items():
        yield {
            "model": run.model,
            "iteration": int(iteration),
            "seed": run.seed,
            "miou": 100 * scores.miou,
            "gain": 100 * (scores.miou - network),
            "pixel_accuracy": 100 * scores.pixel_accuracy,
            **_trimaps(run.trimap_widths_px, scores.trimap_miou),
            "boundary_miou": _percent(scores.boundary_miou),
        }


def _audit_scores(audit: Audit) -> Iterable[dict[str, Any]]:
    for rule, miou in {"protocol": audit.protocol, **audit.rules}.items():
        yield {
            "model": audit.model,
            "rule": rule,
            "seed": audit.seed,
            "miou": _percent(miou),
            "gain": _percent(miou) - 100 * audit.protocol,
        }


def _radius_scores(run: Run) -> Iterable[dict[str, Any]]:
    if run.context_radius is None:
        return
    bins = run.context_radius
    for radius, correct, total in zip(bins.largest_px, bins.correct, bins.total, strict=False):
        if radius and total:
            yield {
                "model": run.model,
                "seed": run.seed,
                "largest_px": radius,
                "accuracy": 100 * correct / total,
                "pixels": total,
            }


Loaded = TypeVar("Loaded", bound=Record)


def _load(path: Path, schema: type[Loaded]) -> Loaded:
    try:
        return schema.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ReportError(f"{path} is missing: run `dvc repro`") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise ReportError(f"{path}: {key}: {first['msg']}: run `dvc repro`") from None


Made = TypeVar("Made", Run, CRFRun, FieldRun, Audit)


def _load_current(
    path: Path,
    schema: type[Made],
    params: Params,
    profile: str,
    model: str,
    seed: int,
    **expected: str,
) -> Made:
    """Refuse a run of settings or code that have changed since, as by an edit while it ran."""
    run = _load(path, schema)
    _require(path, run, profile=profile, **expected, model=model, seed=seed)
    experiment = params.experiment(profile, model)
    module, stage = MADE_BY[schema]
    current = {
        "settings": settings_sha256(experiment, seed),
        "code": run_code_sha256(module, experiment.architecture),
    }
    for what, digest in current.items():
        if run.provenance[f"{what}_sha256"] != digest:
            raise ReportError(
                f"{path} was made from other {what} than there are now: run "
                f"`dvc repro --force {stage}@{profile}-{model}-{seed}`, then `dvc repro`"
            )
    return run


def _require_equal_data(path: Path, run: Run, first: Run) -> None:
    """Refuse a run that cannot be compared image by image."""
    digests = (each.provenance["data_sha256"] for each in (run, first))
    if len(set(digests)) > 1 or list(run.images) != list(first.images):
        raise ReportError(f"{path} is of other data than the runs before: run `dvc repro`")


def _require(path: Path, record: Record, **expected: str | int) -> None:
    for key, value in expected.items():
        if getattr(record, key) != value:
            raise ReportError(
                f"{path} is of {key} {getattr(record, key)!r}, not {value!r}: run `dvc repro`"
            )
