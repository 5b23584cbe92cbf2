"""Stage ``crf``: a checkpoint's predictions, refined by the fully connected CRF."""

from deeplab_bench.crf_evaluation import evaluate_crf
from deeplab_bench.experiment import CRF, Experiment, read_settings
from deeplab_bench.files import write_json
from deeplab_bench.paths import (
    checkpoint_file,
    crf_file,
    crf_samples_files,
    crf_settings_file,
    crf_timing_file,
    data_folder,
    experiment_file,
)


def main(profile: str, model: str, seed: int) -> None:
    result, timing = evaluate_crf(
        read_settings(experiment_file(profile, model), Experiment),
        seed,
        read_settings(crf_settings_file(profile), CRF),
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        crf_samples_files(profile, model, seed),
    )
    write_json(crf_file(profile, model, seed), result)
    write_json(crf_timing_file(profile, model, seed), timing)
