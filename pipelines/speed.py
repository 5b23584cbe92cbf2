"""Stage ``speed``: one model's cost on one machine."""

from deeplab_bench.results.files import data_folder, experiment_file, speed_file
from deeplab_bench.settings.schema import Experiment, read_settings
from deeplab_bench.timing.speed import measure
from deeplab_bench.writing import write_json


def main(profile: str, hardware: str, model: str) -> None:
    experiment = read_settings(experiment_file(profile, model), Experiment)
    write_json(
        speed_file(profile, hardware, model), measure(experiment, hardware, data_folder(profile))
    )
