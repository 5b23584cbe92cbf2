"""Stage ``speed``: one model's cost on one machine."""

from deeplab_bench.files import write_json
from deeplab_bench.params import load_params
from deeplab_bench.paths import data_folder, speed_file
from deeplab_bench.speed import measure


def main(profile: str, hardware: str, model: str) -> None:
    experiment = load_params().experiment(profile, model)
    write_json(
        speed_file(profile, hardware, model), measure(experiment, hardware, data_folder(profile))
    )
