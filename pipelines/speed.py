"""Stage ``speed``: one model's cost on one machine."""

from deeplab_bench.experiment import Experiment, read_settings
from deeplab_bench.files import write_json
from deeplab_bench.paths import data_folder, experiment_file, speed_file
from deeplab_bench.speed import measure


def main(profile: str, hardware: str, model: str) -> None:
    experiment = read_settings(experiment_file(profile, model), Experiment)
    write_json(
        speed_file(profile, hardware, model), measure(experiment, hardware, data_folder(profile))
    )
