"""The results of a profile: its records, and the scores and comparisons that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deeplab_bench.data.dataset import DataSet
from deeplab_bench.errors import UserError
from deeplab_bench.models import get_module_name
from deeplab_bench.report import statistics
from deeplab_bench.report.plausibility import (
    describe_excess,
    find_bad_starts,
    find_beyond_crops,
    find_implausible,
    find_unfinished,
)
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import (
    NO_SOURCE,
    SIZES,
    AuditRecord,
    CRFRecord,
    CRFTimingRecord,
    CurveRecord,
    EvaluationRecord,
    LabelFilesRecord,
    Pretrained,
    ReceptiveFieldRecord,
    RunRecord,
    Scores,
    Source,
    SourcedRecord,
    SpeedRecord,
    TimingRecord,
)
from deeplab_bench.settings.experiment import PRETRAINED
from deeplab_bench.settings.params import Params

PRETRAIN, LABEL_FILES = "pretrain", "label_files"  # stages


class ReportError(UserError):
    """A report cannot be made; the message is one line that says what to do."""


@dataclass(frozen=True)
class Results:
    """The results of a profile; runs and speeds are in the order of params.yaml."""

    params: Params
    profile: str
    runs: list[EvaluationRecord]
    timings: list[TimingRecord]
    speeds: list[SpeedRecord] = field(default_factory=list)
    inferences: list[EvaluationRecord] = field(default_factory=list)
    crf_runs: list[CRFRecord] = field(default_factory=list)
    crf_timings: list[CRFTimingRecord] = field(default_factory=list)
    fields: list[ReceptiveFieldRecord] = field(default_factory=list)
    audits: list[AuditRecord] = field(default_factory=list)
    inference_timings: list[TimingRecord] = field(default_factory=list)
    pretrained: Pretrained | None = None
    label_files: list[LabelFilesRecord] = field(default_factory=list)
    curves: list[CurveRecord] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return ProfileFiles(self.profile).folder

    @property
    def records(self) -> list[RunRecord]:
        """All results of single runs."""
        of_checkpoints = [*self.inferences, *self.crf_runs, *self.fields, *self.audits]
        return [*self.runs, *self.curves, *of_checkpoints]

    @cached_property
    def warnings(self) -> dict[str, dict[str, str]]:
        """The reasons for a warning, by the name of a mark and by model."""
        of_others = {x.name: describe_excess(x, self.miou_ceiling) for x in self.label_files}
        return {
            "implausible": find_implausible([*self.runs, *self.inferences], self.miou_ceiling)
            | {name: excess for name, excess in of_others.items() if excess},
            "bad_start": find_bad_starts(self.runs),
            "unfinished": find_unfinished(self.runs),
            "beyond_crops": self.beyond_crops,
            "trained_on_val": dict.fromkeys(
                self.trained_on_val, "images of val were in its training"
            ),
            "outdated": {model: ", ".join(stages) for model, stages in self.outdated.items()},
        }

    @property
    def beyond_crops(self) -> dict[str, str]:
        """The models whose atrous rates are too high for the crops of their training."""
        if not self.speeds:
            return {}
        experiments = [self.params.experiment(self.profile, model) for model in self.models]
        return find_beyond_crops(experiments, self.speeds[0].input_size)

    @property
    def trained_on_val(self) -> list[str]:
        """The models whose training saw images that they are scored on."""
        return list(dict.fromkeys(run.model for run in self.runs if run.trained_on_val))

    @cached_property
    def outdated(self) -> dict[str, tuple[str, ...]]:
        """The stages whose code has changed since they made a model's results, by model."""
        codes = [(record.model, record.provenance.code_sha256) for record in self.records]
        codes += [(speed.model, speed.code_sha256) for speed in self.speeds]
        found = find_outdated(codes, {run.model: run.architecture for run in self.runs})
        if self.pretrained is not None and self.pretrained.code_sha256 != compute_code_sha256(
            PRETRAIN, type(self.data).__module__
        ):
            found |= {model: (PRETRAIN, *found.get(model, ())) for model in self.from_pretrained}
        today = compute_code_sha256(LABEL_FILES)
        of_others = {
            each.name: (LABEL_FILES,) for each in self.label_files if each.code_sha256 != today
        }
        return {model: found[model] for model in self.models if model in found} | of_others

    @property
    def miou_ceiling(self) -> float | None:
        """The mIoU in percent above which a result is implausible, if there is one."""
        return self.params.profile[self.profile].miou_ceiling

    @property
    def from_pretrained(self) -> list[str]:
        """The models that start from the weights of the profile's pretraining."""
        experiments = (self.params.experiment(self.profile, model) for model in self.models)
        return [each.model for each in experiments if each.training.weights == PRETRAINED]

    def find_sources(self, stages: Iterable[str]) -> list[Source]:
        """Find the sources that these stages made their results from, each once."""
        of_evaluation = [*self.timings, *self.inference_timings]
        records: dict[str, Sequence[SourcedRecord]] = {
            "train": self.timings,
            "evaluate": of_evaluation,
            "crf": self.crf_timings,
            "speed": self.speeds,
        }
        found = [
            record.sources.get(stage, NO_SOURCE)
            for stage in stages
            for record in records.get(stage, ())
        ]
        if LABEL_FILES in stages:
            found += [each.source for each in self.label_files]
        return list(dict.fromkeys(found))

    @property
    def models(self) -> tuple[str, ...]:
        return self.params.run.models

    @property
    def seeds(self) -> tuple[int, ...]:
        return self.params.run.seeds

    @property
    def data(self) -> DataSet:
        return self.params.profile[self.profile].data

    @property
    def generated(self) -> bool:
        """True if the project made the images, so that they may be published."""
        return self.data.generated

    @property
    def has_samples(self) -> bool:
        """True if sample pictures exist. Those of photographs are not in the repository."""
        return self.generated or ProfileFiles(self.profile).sample_images.is_file()

    @cached_property
    def resampled(self) -> pd.DataFrame:
        """The mIoU in percent on each resample of the groups, by model, mean over its seeds."""
        names = pd.Index([run.model for run in self.runs], name="model")
        return _resampled(self.runs, names, self.groups)

    @cached_property
    def resampled_inferences(self) -> pd.DataFrame:
        """The mIoU on the same resamples, by way of inference and model."""
        pairs = [(run.inference, run.model) for run in self.inferences]
        names = pd.MultiIndex.from_tuples(pairs, names=["inference", "model"])
        return _resampled(self.inferences, names, self.groups)

    @cached_property
    def all_resampled(self) -> pd.DataFrame:
        """``resampled``, and the mIoU of models of others on the same resamples."""
        if not self.label_files:
            return self.resampled
        names = pd.Index([each.name for each in self.label_files], name="model")
        of_others = _resampled(self.label_files, names, self.groups)
        return pd.concat([self.resampled, of_others], axis="columns")

    @cached_property
    def miou_by_seed(self) -> pd.DataFrame:
        """The mIoU in percent, (seeds, models)."""
        by_seed = self.scores().pivot(index="seed", columns="model", values="miou")
        return by_seed[list(self.models)]

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The comparisons of all pairs of models (``statistics.compare``), in points."""
        return statistics.compare(self.miou_by_seed, self.resampled, self.group_count)

    @property
    def undecided_because(self) -> str:
        """The reason why no comparison of models has a verdict; empty if they have."""
        if statistics.can_decide(len(self.seeds), self.group_count):
            return ""
        return "one seed" if len(self.seeds) == 1 else "few groups"

    @cached_property
    def prediction_margin(self) -> float:
        """Half of the 95 % prediction interval of one new run, in points; NaN for one seed."""
        return statistics.compute_prediction_margin(self.miou_by_seed)

    @property
    def images(self) -> int:
        return len(self.runs[0].images)

    @cached_property
    def groups(self) -> list[int]:
        """The group of each image, counted from 0; images of one group are not independent."""
        return self.data.group_images(list(self.runs[0].images))

    @property
    def group_count(self) -> int:
        return len(set(self.groups))

    def scores(self) -> pd.DataFrame:
        """Return a row per run: ``model``, ``seed``, and every score in percent."""
        rows = [{"model": run.model, "seed": run.seed} | _scores(run) for run in self.runs]
        return pd.DataFrame(rows)

    def all_scores(self) -> pd.DataFrame:
        """Return the rows of ``scores``, and one for each model of others, with the seed 0."""
        if not self.label_files:
            return self.scores()
        rows = [{"model": each.name, "seed": 0} | _scores(each) for each in self.label_files]
        return pd.concat([self.scores(), pd.DataFrame(rows)], ignore_index=True)

    def inference_scores(self) -> pd.DataFrame:
        """Return the same rows for other ways of inference, with the column ``inference``."""
        rows = [
            {"inference": run.inference, "model": run.model, "seed": run.seed} | _scores(run)
            for run in self.inferences
        ]
        return pd.DataFrame(rows)

    def crf_scores(self) -> pd.DataFrame:
        """Return a row per run and iteration of the CRF, every score in percent.

        ``gain`` is the mIoU minus that of the network without the CRF.
        """
        return pd.DataFrame([row for run in self.crf_runs for row in _crf_scores(run)])

    def refined_scores(self) -> pd.DataFrame:
        """Return the rows of ``crf_scores`` after the last iteration."""
        scores = self.crf_scores()
        return scores[scores["iteration"] == scores["iteration"].max()]

    def audit_scores(self) -> pd.DataFrame:
        """Return a row per audited run and variant; ``gain`` is over the protocol, in percent.

        Models of others have one, with the seed 0.
        """
        audited = [(each.model, each.seed, each.protocol, each.variants) for each in self.audits]
        audited += [(each.name, 0, each.metrics.miou, each.variants) for each in self.label_files]
        return pd.DataFrame([row for each in audited for row in _audit_scores(*each)])

    def radius_scores(self) -> pd.DataFrame:
        """Return a row per run and context radius, with the accuracy in percent.

        Pixels of the ground and those beyond the largest radius are left out.
        """
        return pd.DataFrame([row for run in self.runs for row in _radius_scores(run)])


def find_outdated(
    codes: Iterable[tuple[str, Mapping[str, str]]], architectures: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Find the stages whose code has changed since they wrote results, by model.

    ``codes`` has pairs of a model and the digests of code in one of its results, by stage.
    ``architectures`` has the architecture of each model.
    """
    found: dict[str, dict[str, None]] = {}
    for model, code in codes:
        for stage, digest in code.items():
            if digest != compute_code_sha256(stage, get_module_name(architectures[model])):
                found.setdefault(model, {})[stage] = None
    return {model: tuple(found[model]) for model in architectures if model in found}


def _resampled(records: Sequence[Scores], names: pd.Index, groups: Sequence[int]) -> pd.DataFrame:
    """Return the mIoU in percent on each resample, (resamples, names), mean over equal names."""
    pixels = np.stack([statistics.count_class_pixels(record) for record in records], axis=1)
    pixels = statistics.sum_groups(pixels, groups)
    mious = pd.DataFrame(100 * statistics.resample_miou(*pixels).T, index=names)
    return mious.groupby(level=list(names.names), sort=False).mean().T


def _scores(record: Scores) -> dict[str, float]:
    by_size = {f"miou_{s}": v for s, v in zip(SIZES, record.object_size.miou, strict=True)}
    fractions = record.metrics.model_dump() | by_size
    near = record.boundaries
    fractions |= {f"iou_{c}": v for c, v in record.iou.items()}
    fractions |= {"boundary_miou": near.boundary_miou}
    percents = {k: _percent(v) for k, v in fractions.items()}
    return percents | _trimaps(near.trimap_widths_px, near.trimap_miou)


def _percent(value: float | None) -> float:
    return float("nan") if value is None else 100 * value


def _trimaps(widths: Iterable[int], miou: Iterable[float | None]) -> dict[str, float]:
    return {f"trimap_{w}_px": _percent(v) for w, v in zip(widths, miou, strict=True)}


def _crf_scores(run: CRFRecord) -> Iterable[dict[str, Any]]:
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


def _audit_scores(
    model: str, seed: int, protocol: float, variants: Mapping[str, float | None]
) -> Iterable[dict[str, Any]]:
    for variant, miou in {"protocol": protocol, **variants}.items():
        yield {
            "model": model,
            "variant": variant,
            "seed": seed,
            "miou": _percent(miou),
            "gain": _percent(miou) - 100 * protocol,
        }


def _radius_scores(run: EvaluationRecord) -> Iterable[dict[str, Any]]:
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
