"""Stage ``train``: train one model from one seed, write its checkpoint and its fingerprints."""

from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.results.records import FingerprintRecord, write_record
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.runtime import distributed
from deeplab_bench.settings.experiment import StageSettings
from deeplab_bench.training.train import train


def main(profile: str, model: str, seed: int) -> None:
    files, run = ProfileFiles(profile), RunFiles(profile, model, seed)
    experiment = read_settings(files, "train", model, schema=StageSettings).experiment
    provenance = derive_provenance(experiment, seed, files.data).model_dump()
    fingerprints = train(experiment, seed, files.data, run.checkpoint, provenance)
    if distributed.rank() == 0:
        identity = {"profile": profile, "model": model, "seed": seed, "provenance": provenance}
        write_record(run.fingerprints, FingerprintRecord, identity | fingerprints)
