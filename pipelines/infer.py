"""Stage ``infer``: a checkpoint to its metrics under another way of inference."""

from deeplab_bench.evaluation.evaluate import evaluate_inference
from deeplab_bench.results.files import (
    checkpoint_file,
    data_folder,
    experiment_file,
    inference_file,
    inference_settings_file,
)
from deeplab_bench.runtime import distributed
from deeplab_bench.settings.schema import Experiment, Inference, read_settings
from deeplab_bench.writing import write_json


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
