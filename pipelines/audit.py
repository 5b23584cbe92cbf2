"""Stage ``audit``: score a checkpoint with the scoring variants found in published code."""

from deeplab_bench.evaluation.protocol_audit import audit
from deeplab_bench.results.records import AuditRecord, write_record
from deeplab_bench.settings.experiment import StageSettings
from pipelines.trained_run import open_trained_run


def main(profile: str, model: str, seed: int) -> None:
    run = open_trained_run("audit", profile, model, seed=seed, schema=StageSettings)
    result = audit(run.experiment, seed, run.validation_split, run.checkpoint)
    write_record(run.files.audit, AuditRecord, run.stamp(result))
