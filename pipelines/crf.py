"""Stage ``crf``: a checkpoint's predictions, refined by the fully connected CRF."""

from deeplab_bench.evaluation.crf.evaluate import evaluate_crf
from deeplab_bench.results.files import (
    checkpoint_file,
    crf_file,
    crf_samples_files,
    crf_settings_file,
    crf_timing_file,
    data_folder,
    experiment_file,
)
from deeplab_bench.settings.schema import CRF, Experiment, read_settings
from deeplab_bench.writing import write_json


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
