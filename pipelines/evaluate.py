"""Stage ``evaluate``: a checkpoint to its metrics, its timing and its sample predictions."""

from deeplab_bench.evaluation.evaluate import evaluate
from deeplab_bench.results.files import (
    checkpoint_file,
    data_folder,
    experiment_file,
    run_file,
    samples_file,
    timing_file,
)
from deeplab_bench.runtime import distributed
from deeplab_bench.settings.schema import Experiment, read_settings
from deeplab_bench.writing import write_json


def main(profile: str, model: str, seed: int) -> None:
    result, timing = evaluate(
        read_settings(experiment_file(profile, model), Experiment),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        samples_file(profile, model, seed),
    )
    if distributed.rank() == 0:
        write_json(run_file(profile, model, seed), result)
        write_json(timing_file(profile, model, seed), timing)
