"""Stage ``speed``: measure the cost of one model on one machine."""

from deeplab_bench.data.packed import load_split
from deeplab_bench.models import get_module_name
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import SpeedRecord, write_record
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.experiment import StageSettings
from deeplab_bench.timing.speed import measure


def main(profile: str, hardware: str, model: str) -> None:
    files = ProfileFiles(profile)
    experiment = read_settings(files, "speed", model, schema=StageSettings).experiment
    module = get_module_name(experiment.architecture)
    stamp = {
        "code_sha256": {"speed": compute_code_sha256("speed", module)},
        "sources": {"speed": describe_source()},
    }
    result = measure(experiment, hardware, load_split(files.data, "val"))
    write_record(files.speed(hardware, model), SpeedRecord, result | stamp)
