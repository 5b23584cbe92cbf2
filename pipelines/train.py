"""Stage ``train``: one model, one seed, to a checkpoint."""

from deeplab_bench.params import load_params
from deeplab_bench.paths import checkpoint_file, data_folder
from deeplab_bench.training import train


def main(profile: str, model: str, seed: int) -> None:
    experiment = load_params().experiment(profile, model)
    train(experiment, seed, data_folder(profile), checkpoint_file(profile, model, seed))
