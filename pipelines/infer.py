"""Stage ``infer``: a checkpoint to its metrics under another way of inference."""

from deeplab_bench.evaluation import evaluate_inference
from deeplab_bench.files import write_json
from deeplab_bench.params import load_params
from deeplab_bench.paths import checkpoint_file, data_folder, inference_file


def main(profile: str, inference: str, model: str, seed: int) -> None:
    params = load_params()
    result = evaluate_inference(
        params.experiment(profile, model),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        inference,
        params.inference[inference],
    )
    write_json(inference_file(profile, inference, model, seed), result)
