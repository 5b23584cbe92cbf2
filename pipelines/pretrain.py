"""Stage ``pretrain``: train a profile's backbone to classify images of single objects.

DVC needs the same files of every profile: without ``pretraining``, weights and records are empty.
"""

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import PretrainingRecord, PretrainingTimingRecord, write_record
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.settings.pretraining import PretrainingSettings
from deeplab_bench.training.pretraining import pretrain
from deeplab_bench.writing import write_tensors


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    task = read_settings(files, "pretrain", schema=PretrainingSettings).task
    result, timing = None, None
    if task is None:
        write_tensors(files.pretrained, {})
    else:
        result, timing = pretrain(task, files.pretrained)
    identity = {"profile": profile}
    write_record(files.pretraining, PretrainingRecord, identity | {"result": result})
    write_record(files.pretraining_timing, PretrainingTimingRecord, identity | {"result": timing})
