"""Stage ``crf``: a checkpoint's predictions, refined by the fully connected CRF."""

from deeplab_bench.crf_evaluation import evaluate_crf
from deeplab_bench.files import write_json
from deeplab_bench.params import load_params
from deeplab_bench.paths import (
    checkpoint_file,
    crf_file,
    crf_samples_files,
    crf_timing_file,
    data_folder,
)


def main(profile: str, model: str, seed: int) -> None:
    params = load_params()
    result, timing = evaluate_crf(
        params.experiment(profile, model),
        seed,
        params.crf(profile),
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        crf_samples_files(profile, model, seed),
    )
    write_json(crf_file(profile, model, seed), result)
    write_json(crf_timing_file(profile, model, seed), timing)
