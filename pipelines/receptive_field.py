"""Stage ``receptive_field``: compute a checkpoint's theoretical and effective receptive field."""

from deeplab_bench.analysis.effective_field import measure_field
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import ReceptiveFieldRecord, write_record
from deeplab_bench.settings.experiment import StageSettings
from pipelines.trained_run import open_trained_run


def main(profile: str, model: str, seed: int) -> None:
    files = ProfileFiles(profile)
    run = open_trained_run("receptive_field", profile, model, seed=seed, schema=StageSettings)
    maps = files.receptive_field_maps(model)
    result = measure_field(run.experiment, seed, run.validation_split, run.checkpoint, maps)
    write_record(files.receptive_field(model), ReceptiveFieldRecord, run.stamp(result))
