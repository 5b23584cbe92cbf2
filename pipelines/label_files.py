"""Stage ``label_files``: score label files that another program predicted."""

from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.evaluation.label_files import score_label_files
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import LabelFilesRecord, write_record
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.base import Settings


def main(profile: str, model: str) -> None:
    files = ProfileFiles(profile)
    read_settings(files, "label_files", model, schema=Settings)
    content = {
        "profile": profile,
        "name": model,
        "data_sha256": compute_data_sha256(files.data),
        "code_sha256": compute_code_sha256("label_files"),
        "source": describe_source(),
        **score_label_files(files.label_folder(model).resolve(), load_split(files.data, "val")),
    }
    write_record(files.label_files(model), LabelFilesRecord, content)
