"""Stage ``evaluate``: a checkpoint to its metrics, its timing and its sample predictions."""

from deeplab_bench import distributed
from deeplab_bench.evaluation import evaluate
from deeplab_bench.experiment import Experiment, read_settings
from deeplab_bench.files import write_json
from deeplab_bench.paths import (
    checkpoint_file,
    data_folder,
    experiment_file,
    run_file,
    samples_file,
    timing_file,
)


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
