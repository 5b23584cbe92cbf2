"""Stage ``receptive_field``: a checkpoint's receptive field, theoretical and effective."""

from deeplab_bench.analysis.effective_field import measure_field
from deeplab_bench.results.files import (
    checkpoint_file,
    data_folder,
    experiment_file,
    receptive_field_file,
    receptive_field_maps_file,
)
from deeplab_bench.settings.schema import Experiment, read_settings
from deeplab_bench.writing import write_json


def main(profile: str, model: str, seed: int) -> None:
    result = measure_field(
        read_settings(experiment_file(profile, model), Experiment),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
        receptive_field_maps_file(profile, model),
    )
    write_json(receptive_field_file(profile, model), result)
