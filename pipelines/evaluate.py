"""Stage ``evaluate``: compute a checkpoint's metrics and samples under one way of inference."""

import time

from deeplab_bench.data.pixels import write_label
from deeplab_bench.data.samples import tile
from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.results.records import EvaluationRecord, TimingRecord, write_record
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.inference import EvaluationSettings
from deeplab_bench.training.train import read_timing
from pipelines.trained_run import open_trained_run


def main(profile: str, inference: str, model: str, seed: int) -> None:
    run = open_trained_run(
        "evaluate", profile, inference, model, seed=seed, schema=EvaluationSettings
    )
    timing = read_timing(run.files.checkpoint)
    timing["sources"]["evaluate"] = describe_source()
    started = time.monotonic()
    result, samples = evaluate(
        run.experiment,
        seed,
        run.settings.inference,
        run.validation_split,
        run.training_split,
        run.checkpoint,
    )
    timing["evaluation_seconds"] = round(time.monotonic() - started, 2)
    if distributed.rank() == 0:
        files, record = run.files, run.stamp({"inference": inference} | result)
        write_record(files.evaluation(inference), EvaluationRecord, record)
        write_record(files.evaluation_timing(inference), TimingRecord, timing)
        files.samples(inference).parent.mkdir(parents=True, exist_ok=True)
        write_label(files.samples(inference), tile(samples))
