"""Stage ``infer``: a checkpoint to its metrics under another way of inference."""

from deeplab_bench import distributed
from deeplab_bench.evaluation import evaluate_inference
from deeplab_bench.experiment import Experiment, Inference, read_settings
from deeplab_bench.files import write_json
from deeplab_bench.paths import (
    checkpoint_file,
    data_folder,
    experiment_file,
    inference_file,
    inference_settings_file,
)


def main(profile: str, inference: str, model: str, seed: int) -> None:
    result = evaluate_inference(
        read_settings(experiment_file(profile, model), Experiment),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        inference,
        read_settings(inference_settings_file(profile, inference), Inference),
    )
    if distributed.rank() == 0:
        write_json(inference_file(profile, inference, model, seed), result)
