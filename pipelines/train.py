"""Stage ``train``: train one model from one seed, and write its checkpoint."""

from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.settings.experiment import StageSettings
from deeplab_bench.training.train import train


def main(profile: str, model: str, seed: int) -> None:
    files = ProfileFiles(profile)
    experiment = read_settings(files, "train", model, schema=StageSettings).experiment
    provenance = derive_provenance(experiment, seed, files.data)
    checkpoint = RunFiles(profile, model, seed).checkpoint
    train(experiment, seed, files.data, checkpoint, provenance.model_dump())
