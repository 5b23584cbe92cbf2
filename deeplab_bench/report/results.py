"""The result files of a profile: what is declared is read and checked, all else on disk ignored."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from deeplab_bench.errors import UserError
from deeplab_bench.params import Params
from deeplab_bench.paths import (
    RESULTS,
    crf_file,
    crf_timing_file,
    inference_file,
    run_file,
    speed_file,
    timing_file,
)
from deeplab_bench.provenance import code_sha256, settings_sha256

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


class History(Record):
    iteration: tuple[int, ...]
    loss: tuple[float, ...]

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
    images: dict[str, tuple[tuple[int, int, int], ...]]
    training: History
    inference: str | None = None

    @field_validator("iou")
    @classmethod
    def _of_every_class(cls, iou: dict[str, Any], info: Any) -> dict[str, Any]:
        if list(iou) != list(info.data.get("classes", iou)):
            raise ValueError(f"it is of {list(iou)}, the classes are {list(info.data['classes'])}")
        return iou


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


class CRFSearch(Record):
    images: int


class CRFRun(Record):
    """What the CRF makes of a run, by iteration; ``search`` is None where parameters were given."""

    profile: str
    model: str
    seed: int
    settings: dict[str, Any]
    provenance: dict[str, str]
    parameters: dict[str, float]
    search: CRFSearch | None
    trimap_widths_px: tuple[int, ...]
    pictured: tuple[int, ...]
    iterations: dict[str, CRFScores]


class CRFTiming(Record):
    """``seconds_per_image``: of all iterations, in one process."""

    seconds_per_image: float
    environment: Environment


@dataclass(frozen=True)
class Results:
    """All of a profile's results, runs and speeds in declared order."""

    params: Params
    profile: str
    runs: list[Run]
    timings: list[Timing]
    speeds: list[Speed]
    inferences: list[Run]
    crf_runs: list[CRFRun]
    crf_timings: list[CRFTiming]

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
        return self.params.profile[self.profile].data.dataset == "shapes"

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


def load_results(params: Params, profile: str) -> Results:
    """
    Raises:
        ReportError: a declared file is missing, malformed, or of something else.
    """
    if profile not in params.profile:
        raise ReportError(f"profile {profile!r} is not in params.yaml: {', '.join(params.profile)}")
    return Results(
        params,
        profile,
        load_runs(params, profile),
        load_timings(params, profile),
        load_speeds(params, profile),
        load_inferences(params, profile),
        load_crf_runs(params, profile),
        [_load(crf_timing_file(profile, *run), CRFTiming) for run in _declared_crf(params)],
    )


def load_runs(params: Params, profile: str) -> list[Run]:
    runs: list[Run] = []
    code = code_sha256("deeplab_bench.evaluation")
    for model, seed in _declared(params):
        path = run_file(profile, model, seed)
        run = _load(path, Run)
        _require(path, run, profile=profile, model=model, seed=seed)
        _require_current(path, run, params, code, "train")
        if runs and run.provenance["data_sha256"] != runs[0].provenance["data_sha256"]:
            raise ReportError(f"{path} is of other data than the runs before: run `dvc repro`")
        runs.append(run)
    if not runs:
        raise ReportError("params.yaml: run.models and run.seeds need an entry each")
    return runs


def load_crf_runs(params: Params, profile: str) -> list[CRFRun]:
    runs: list[CRFRun] = []
    code = code_sha256("deeplab_bench.crf_evaluation") if params.run.crf else ""
    for model, seed in _declared_crf(params):
        path = crf_file(profile, model, seed)
        run = _load(path, CRFRun)
        _require(path, run, profile=profile, model=model, seed=seed)
        _require_current(path, run, params, code, "crf")
        if run.settings != params.crf(profile).model_dump(mode="json"):
            raise ReportError(f"{path} is of other CRF settings than there are: run `dvc repro`")
        runs.append(run)
    return runs


def load_timings(params: Params, profile: str) -> list[Timing]:
    return [_load(timing_file(profile, *run), Timing) for run in _declared(params)]


def load_speeds(params: Params, profile: str) -> list[Speed]:
    speeds = []
    for hardware in params.run.hardware:
        for model in params.run.models:
            path = speed_file(profile, hardware, model)
            speed = _load(path, Speed)
            _require(path, speed, profile=profile, hardware=hardware, model=model)
            speeds.append(speed)
    return speeds


def load_inferences(params: Params, profile: str) -> list[Run]:
    runs, code = [], code_sha256("deeplab_bench.evaluation")
    for inference in params.run.inference:
        settings = params.inference[inference].model_dump(mode="json")
        for model, seed in _declared(params):
            path = inference_file(profile, inference, model, seed)
            run = _load(path, Run)
            _require(path, run, profile=profile, inference=inference, model=model, seed=seed)
            _require_current(path, run, params, code, "train")
            if run.settings["inference"] != settings:
                raise ReportError(f"{path} is of another inference.{inference}: run `dvc repro`")
            runs.append(run)
    return runs


def write(path: Path, content: bytes) -> None:
    """Write a file that under this name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _declared(params: Params) -> Iterable[tuple[str, int]]:
    return ((model, seed) for model in params.run.models for seed in params.run.seeds)


def _declared_crf(params: Params) -> Iterable[tuple[str, int]]:
    return ((model, seed) for model in params.run.crf for seed in params.run.seeds)


def _scores(run: Run) -> dict[str, Any]:
    by_size = {f"miou_{s}": v for s, v in zip(SIZES, run.object_size.miou, strict=True)}
    fractions = run.metrics.model_dump() | by_size | {f"iou_{c}": v for c, v in run.iou.items()}
    percents = {k: float("nan") if v is None else 100 * v for k, v in fractions.items()}
    return {"model": run.model, "seed": run.seed} | percents


def _crf_scores(run: CRFRun) -> Iterable[dict[str, Any]]:
    network = run.iterations["0"].miou
    for iteration, scores in run.iterations.items():
        trimaps = zip(run.trimap_widths_px, scores.trimap_miou, strict=True)
        yield {
            "model": run.model,
            "iteration": int(iteration),
            "seed": run.seed,
            "miou": 100 * scores.miou,
            "gain": 100 * (scores.miou - network),
            "pixel_accuracy": 100 * scores.pixel_accuracy,
            **{f"trimap_{w}_px": float("nan") if v is None else 100 * v for w, v in trimaps},
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


def _require_current(path: Path, run: Run | CRFRun, params: Params, code: str, stage: str) -> None:
    """Refuse a run of settings or code that have changed since, as by an edit while it ran."""
    current = {
        "settings": settings_sha256(params.experiment(run.profile, run.model), run.seed),
        "code": code,
    }
    for what, digest in current.items():
        if run.provenance[f"{what}_sha256"] != digest:
            item = f"{run.profile}-{run.model}-{run.seed}"
            raise ReportError(
                f"{path} was made from other {what} than there are now: run "
                f"`dvc repro --force {stage}@{item}`, then `dvc repro`"
            )


def _require(path: Path, record: Record, **expected: str | int) -> None:
    for key, value in expected.items():
        if getattr(record, key) != value:
            raise ReportError(
                f"{path} is of {key} {getattr(record, key)!r}, not {value!r}: run `dvc repro`"
            )
