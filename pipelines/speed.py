"""Stage ``speed``: one model's cost on one machine."""

from deeplab_bench.data.packed import load_split
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import SpeedRecord, write_record
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.settings.schema import StageSettings
from deeplab_bench.timing.speed import measure


def main(profile: str, hardware: str, model: str) -> None:
    files = ProfileFiles(profile)
    settings_file = files.settings("speed", model)
    experiment = read_settings(settings_file, "speed", StageSettings).experiment
    stamp = {"code_sha256": {"speed": compute_code_sha256("speed", experiment.architecture)}}
    result = measure(experiment, hardware, load_split(files.data, "val"))
    write_record(files.speed(hardware, model), SpeedRecord, result | stamp)
