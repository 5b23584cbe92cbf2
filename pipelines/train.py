"""Stage ``train``: one model, one seed, to a checkpoint."""

from deeplab_bench.results.files import checkpoint_file, data_folder, experiment_file
from deeplab_bench.settings.schema import Experiment, read_settings
from deeplab_bench.training.train import train


def main(profile: str, model: str, seed: int) -> None:
    experiment = read_settings(experiment_file(profile, model), Experiment)
    train(experiment, seed, data_folder(profile), checkpoint_file(profile, model, seed))
