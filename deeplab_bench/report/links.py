"""Links of the chain behind a cell: records, with the files that say how they were made."""

from pathlib import Path
from typing import NamedTuple

from deeplab_bench.report.origins import Records
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.records import (
    NO_SOURCE,
    AuditRecord,
    CRFRecord,
    CurveRecord,
    EvaluationRecord,
    ReceptiveFieldRecord,
    RunRecord,
    Source,
    SourcedRecord,
    SpeedRecord,
    read_record,
)
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.params import Params

SCHEMAS: dict[str, type[RunRecord] | type[SpeedRecord]] = {
    "train": CurveRecord,
    "evaluate": EvaluationRecord,
    "crf": CRFRecord,
    "audit": AuditRecord,
    "receptive_field": ReceptiveFieldRecord,
    "speed": SpeedRecord,
}


class Link(NamedTuple):
    """A record that enters a cell.

    ``value_file`` has the value, ``record_file`` the digests, ``time_files`` sources and machines.
    """

    name: str
    model: str
    seed: int | None
    stage: str
    value_file: Path
    record_file: Path
    time_files: tuple[Path, ...]
    settings_file: Path


def list_links(params: Params, profile: str, records: Records) -> list[Link]:
    """List the records of one stage that enter a cell."""
    models = params.run.models if records.model is None else (records.model,)
    of_stage = {"receptive_field": link_receptive_field, "speed": link_speed}
    if records.stage in of_stage:
        return [of_stage[records.stage](params, profile, records, model) for model in models]
    return [
        link_run(RunFiles(profile, model, seed), records)
        for model in models
        for seed in params.run.seeds
        if records.seed in (None, seed)
    ]


def link_run(files: RunFiles, records: Records) -> Link:
    trained = files.evaluation_timing(PLAIN)
    names = (records.inference,) if records.stage == "evaluate" else ()
    stage = records.stage.removesuffix("_timing")
    settings = ProfileFiles(files.profile).settings(stage, *names, files.model)
    way = "" if records.inference == PLAIN else f", {records.inference}"
    paths = {
        "train": (files.curve, files.curve, (trained,)),
        "evaluate": (
            files.evaluation(records.inference),
            files.evaluation(records.inference),
            (files.evaluation_timing(records.inference),),
        ),
        "crf": (files.crf, files.crf, (trained, files.crf_timing)),
        "crf_timing": (files.crf_timing, files.crf, (files.crf_timing,)),
        "audit": (files.audit, files.audit, (trained,)),
    }[records.stage]
    return Link(f"{files.name}{way}", files.model, files.seed, stage, *paths, settings)


def link_receptive_field(params: Params, profile: str, records: Records, model: str) -> Link:
    seed, of_profile = params.run.seeds[0], ProfileFiles(profile)
    path, trained = of_profile.receptive_field(model), RunFiles(profile, model, seed)
    settings = of_profile.settings(records.stage, model)
    times = (trained.evaluation_timing(PLAIN),)
    return Link(trained.name, model, seed, records.stage, path, path, times, settings)


def link_speed(params: Params, profile: str, records: Records, model: str) -> Link:
    files = ProfileFiles(profile)
    hardware = records.hardware or params.run.hardware[0]
    path, settings = files.speed(hardware, model), files.settings("speed", model)
    return Link(model, model, None, "speed", path, path, (path,), settings)


class Made(NamedTuple):
    """A record, its link, and its files with machines and sources."""

    link: Link
    record: RunRecord | SpeedRecord
    times: tuple[SourcedRecord, ...]

    @property
    def codes(self) -> dict[str, str]:
        """The digests of code by stage."""
        if isinstance(self.record, SpeedRecord):
            return self.record.code_sha256
        return self.record.provenance.code_sha256

    @property
    def sources(self) -> dict[str, Source]:
        """The source of each stage; those of audits and receptive fields are not recorded."""
        found: dict[str, Source] = {}
        for times in self.times:
            found |= times.sources
        return {stage: found.get(stage, NO_SOURCE) for stage in self.codes}


def read_link(link: Link) -> Made:
    """Read the files of a link.

    Raises:
        RecordError: a file is missing or malformed.
    """
    record = read_record(link.record_file, SCHEMAS[link.stage])
    return Made(link, record, tuple(read_record(path, SourcedRecord) for path in link.time_files))
