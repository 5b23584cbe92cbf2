"""Command ``score``: score label files that another network predicted."""

import re
from pathlib import Path
from typing import Annotated

from deeplab_bench.data.packed import compute_data_sha256, load_split
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.label_files import compute_scoring_sha256, score_label_files
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.records import LabelFilesRecord, read_record, write_record
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.sections import NAME_PATTERN


class NameOfFilesError(UserError):
    """A name that label files cannot have; the message says why."""


def main(
    predictions: Annotated[str, "the folder with a label PNG for each validation image"],
    *,
    profile: Annotated[str, "the profile of the images (default: the first that runs)"] = "",
    name: Annotated[str, "the name in the tables (default: that of the folder)"] = "",
) -> None:
    """
    Raises:
        DataError: the data are not prepared, or a file is missing or holds something else.
        NameOfFilesError: the name is that of a model or of other label files, or cannot be part of
            a path.
        ParamsError: params.yaml does not define the profile.
    """
    params = load_params()
    files = ProfileFiles(params.pick_profile(profile))
    folder = Path(predictions)
    chosen = name or folder.resolve().name
    if chosen in params.models:
        raise NameOfFilesError(f"{chosen} is a model of params.yaml: give another --name")
    if not re.match(NAME_PATTERN, chosen):
        raise NameOfFilesError(f"{chosen!r} cannot be a name: give --name of A-Z, a-z, 0-9, _ or .")
    scores = score_label_files(folder, load_split(files.data, "val"))
    content = {
        "profile": files.profile,
        "name": chosen,
        "data_sha256": compute_data_sha256(files.data),
        "code_sha256": compute_scoring_sha256(),
        "source": describe_source(),
        **scores,
    }
    path = files.label_files / f"{chosen}.json"
    if not name and path.is_file():
        before = read_record(path, LabelFilesRecord)
        if before.labels_sha256 != scores["labels_sha256"]:
            raise NameOfFilesError(
                f"{path} has the scores of other label files: give another --name, or --name "
                f"{chosen} to replace them"
            )
    write_record(path, LabelFilesRecord, content)
    print(describe(read_record(path, LabelFilesRecord)))
    print(f"{path} is written: `make repro PROFILE={files.profile}` puts it into the tables")


def describe(record: LabelFilesRecord) -> str:
    """Describe the scores: the protocol's mIoU, every class, and the other rules of scoring."""
    lines = [f"{record.name} on {len(record.images)} images of {record.profile}"]
    lines += format_rows({"mIoU": record.metrics.miou, **record.iou})
    lines += ["", "mIoU by other rules of scoring", *format_rows(record.variants)]
    return "\n".join(lines)


def format_rows(values: dict[str, float | None]) -> list[str]:
    width = max(map(len, values))
    return [
        f"  {name:{width}}  " + ("not defined" if value is None else f"{100 * value:6.2f}")
        for name, value in values.items()
    ]
