"""Stage ``crf``: refine a checkpoint's predictions by the fully connected CRF."""

from deeplab_bench.evaluation.crf.evaluate import evaluate_crf
from deeplab_bench.results.records import CRFRecord, CRFTimingRecord, write_record
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.crf import CRFSettings
from pipelines.trained_run import open_trained_run


def main(profile: str, model: str, seed: int) -> None:
    run = open_trained_run("crf", profile, model, seed=seed, schema=CRFSettings)
    stamp = {"sources": {"crf": describe_source()}}
    result, timing = evaluate_crf(
        run.experiment,
        seed,
        run.settings.crf,
        run.data_folder,
        run.checkpoint,
        run.files.crf_samples,
    )
    write_record(run.files.crf, CRFRecord, run.stamp(result))
    write_record(run.files.crf_timing, CRFTimingRecord, timing | stamp)
