"""The results of a profile, read from the declared files and checked against each other."""

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

import pandas as pd

from deeplab_bench.data.packed import MANIFEST, compute_data_sha256
from deeplab_bench.report.results import ReportError, Results
from deeplab_bench.results.files import RESULTS, ProfileFiles, RunFiles
from deeplab_bench.results.provenance import compute_settings_sha256
from deeplab_bench.results.records import (
    AuditRecord,
    CRFRecord,
    CRFTimingRecord,
    CurveRecord,
    EvaluationRecord,
    LabelFilesRecord,
    Pretrained,
    PretrainingRecord,
    ReceptiveFieldRecord,
    Record,
    RunRecord,
    SpeedRecord,
    TimingRecord,
    read_record,
)
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.params import Params


def load_results(params: Params, profile: str) -> Results:
    """Read all results of a profile that params.yaml declares.

    Raises:
        RecordError: a declared file is missing or malformed.
        ReportError: a file was made with other settings or data than params.yaml declares.
    """
    if profile not in params.profile:
        raise ReportError(f"profile {profile!r} is not in params.yaml: {', '.join(params.profile)}")
    seeds, run = params.run.seeds, params.run
    files = ProfileFiles(profile)

    def of_runs(models: Iterable[str]) -> list[RunFiles]:
        return [RunFiles(profile, model, seed) for model, seed in product(models, seeds)]

    runs = [load_evaluation(params, each, PLAIN) for each in of_runs(run.models)]
    others = [
        (each, name) for name in run.inference if name != PLAIN for each in of_runs(run.models)
    ]
    inferences = [load_evaluation(params, each, name) for each, name in others]
    results = Results(
        params,
        profile,
        runs,
        [read_record(each.evaluation_timing(PLAIN), TimingRecord) for each in of_runs(run.models)],
        [
            load_speed(files.speed(hardware, model), hardware, model, profile)
            for hardware, model in product(run.hardware, run.models)
        ],
        inferences,
        [load_crf(params, each) for each in of_runs(run.crf)],
        [read_record(each.crf_timing, CRFTimingRecord) for each in of_runs(run.crf)],
        [
            load_run(
                params,
                files.receptive_field(model),
                ReceptiveFieldRecord,
                RunFiles(profile, model, seeds[0]),
            )
            for model in run.models
        ],
        [load_run(params, each.audit, AuditRecord, each) for each in of_runs(run.audit)],
        [read_record(each.evaluation_timing(name), TimingRecord) for each, name in others],
        load_pretrained(params, files),
        load_label_files(params, files),
        load_curves(params, of_runs(run.models)),
    )
    require_equal_data(results)
    require_equal_weights(results)
    return results


def declare(params: Params, profile: str) -> Params:
    """Declare what there are results of, if the profile is not the one that params.yaml runs.

    Raises:
        ReportError: there are no results of the profile.
    """
    if profile in params.run.profiles:
        return params
    folder = RESULTS / profile
    table = folder / "tables" / "accuracy.csv"
    if not table.is_file():
        raise ReportError(f"{folder} has no tables: run `make repro PROFILE={profile}`")
    shown = list(pd.read_csv(table, dtype=str, keep_default_na=False)["model"])
    models = [model for model in shown if model not in params.files_of_others]

    def runs_of(stage: str) -> list[tuple[str, int]]:
        names = [path.stem.rpartition("-") for path in sorted((folder / stage).glob("*.json"))]
        return [(model, int(seed)) for model, _, seed in names if model in models]

    def models_of(stage: str) -> tuple[str, ...]:
        named = {model for model, _ in runs_of(stage)}
        return tuple(model for model in models if model in named)

    def names_in(stage: str) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (folder / stage).glob("*") if path.is_dir()))

    update = {
        "models": tuple(models),
        "seeds": tuple(sorted({seed for _, seed in runs_of(f"runs/evaluate/{PLAIN}")})),
        "inference": names_in("runs/evaluate"),
        "hardware": names_in("timings/speed"),
        "crf": models_of("runs/crf"),
        "audit": models_of("runs/audit"),
        "label_files": tuple(model for model in shown if model in params.files_of_others),
    }
    return params.model_copy(update={"run": params.run.model_copy(update=update)})


Loaded = TypeVar("Loaded", bound=RunRecord)


def load_run(params: Params, path: Path, schema: type[Loaded], files: RunFiles) -> Loaded:
    """Read the record of a run, and refuse it if the run's settings have changed since."""
    record = read_record(path, schema)
    require(path, record, profile=files.profile, model=files.model, seed=files.seed)
    experiment = params.experiment(files.profile, files.model)
    if record.provenance.settings_sha256 != compute_settings_sha256(experiment, files.seed):
        raise ReportError(
            f"{path} was made from other settings than there are now: run `dvc repro`"
        )
    return record


def load_evaluation(params: Params, files: RunFiles, inference: str) -> EvaluationRecord:
    path = files.evaluation(inference)
    record = load_run(params, path, EvaluationRecord, files)
    if record.settings["inference"] != params.inference[inference].model_dump(mode="json"):
        raise ReportError(
            f"{path} is of other settings than inference.{inference} in params.yaml: "
            "run `dvc repro`"
        )
    return record


def load_crf(params: Params, files: RunFiles) -> CRFRecord:
    record = load_run(params, files.crf, CRFRecord, files)
    if record.settings != params.crf(files.profile).model_dump(mode="json"):
        raise ReportError(f"{files.crf} is of other CRF settings than there are: run `dvc repro`")
    return record


def load_curves(params: Params, runs: Sequence[RunFiles]) -> list[CurveRecord]:
    """Read the validation curves of all runs; none if one is missing, empty or on other images."""
    if not all(each.curve.is_file() for each in runs):
        return []
    curves = [load_run(params, each.curve, CurveRecord, each) for each in runs]
    alike = len({curve.images for curve in curves}) == 1
    return curves if alike and all(curve.iteration for curve in curves) else []


def load_speed(path: Path, hardware: str, model: str, profile: str) -> SpeedRecord:
    record = read_record(path, SpeedRecord)
    require(path, record, profile=profile, model=model, hardware=hardware)
    return record


def load_pretrained(params: Params, files: ProfileFiles) -> Pretrained | None:
    """Read the record of the profile's pretraining; None if there is no pretraining."""
    task = params.pretraining(files.profile).task
    if task is None:
        return None
    result = read_record(files.pretraining, PretrainingRecord).result
    if result is None or result.settings != task.model_dump(mode="json"):
        raise ReportError(
            f"{files.pretraining} was made from other settings than there are now: run `dvc repro`"
        )
    return result


def load_label_files(params: Params, files: ProfileFiles) -> list[LabelFilesRecord]:
    """Read the scores of models of others, by their label files."""
    records = []
    for model in params.run.label_files:
        path = files.label_files(model)
        record = read_record(path, LabelFilesRecord)
        require(path, record, profile=files.profile, name=model)
        records.append(record)
    return records


def require_equal_weights(results: Results) -> None:
    """Refuse results of models that started from the weights of another pretraining."""
    if results.pretrained is None:
        return
    models, expected = results.from_pretrained, results.pretrained.weights_sha256
    for record in results.records:
        if record.model in models and record.provenance.weights_sha256 != expected:
            raise ReportError(
                f"{record.model}, seed {record.seed}, started from other pretrained weights than "
                f"those of {ProfileFiles(results.profile).pretraining}: run `dvc repro`"
            )


def require_equal_data(results: Results) -> None:
    """Refuse results made from different data, or from other data than those on disk, if any."""
    first, folder = results.runs[0], ProfileFiles(results.profile).data
    expected = first.provenance.data_sha256
    if (folder / MANIFEST).is_file() and compute_data_sha256(folder) != expected:
        raise ReportError(
            f"results/{results.profile} was made from other data than {folder}: run `dvc repro`"
        )
    for record in results.records:
        same_images = not isinstance(record, EvaluationRecord) or (
            list(record.images) == list(first.images)
        )
        if record.provenance.data_sha256 != expected or not same_images:
            raise ReportError(
                f"{record.model}, seed {record.seed}, was made from other data than {first.model}, "
                f"seed {first.seed}: run `dvc repro`"
            )
    for each in results.label_files:
        if each.data_sha256 != expected or list(each.images) != list(first.images):
            raise ReportError(
                f"{each.name} was scored on other data than {first.model}: run `dvc repro`"
            )


def require(path: Path, record: Record, **expected: str | int) -> None:
    for key, value in expected.items():
        if getattr(record, key) != value:
            raise ReportError(
                f"{path} is of {key} {getattr(record, key)!r}, not {value!r}: run `dvc repro`"
            )
