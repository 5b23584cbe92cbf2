"""Command ``score``: print the scores of label files that another program predicted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import DataError
from deeplab_bench.evaluation.label_files import score_label_files
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.settings.loading import load_params

ROW = """\
For a row in the tables, add to params.yaml, and run `make repro`:
  models: {{theirs: {{predictions: {folder}}}}}
  run: {{label_files: [theirs]}}"""


def main(
    *,
    predictions: Annotated[str, "the folder with a label PNG for each validation image"],
    profile: Annotated[str, "the profile of the images (default: the first that runs)"] = "",
) -> None:
    """
    Raises:
        DataError: the folder has no PNG, the data are not prepared, or a file is missing or holds
            something else.
        ParamsError: params.yaml does not define the profile.
    """
    chosen, folder = load_params().pick_profile(profile), Path(predictions)
    if not any(folder.glob("*.png")):
        raise DataError(f"--predictions: {folder} is no folder with label PNGs")
    scores = score_label_files(folder, load_split(ProfileFiles(chosen).data, "val"))
    print(describe(f"{folder} on {len(scores['images'])} images of {chosen}", scores))
    print(f"\n{ROW.format(folder=folder)}")


def describe(title: str, scores: Mapping[str, Any]) -> str:
    """Describe the scores: the protocol's mIoU, every class, and the other rules of scoring."""
    lines = [title, *format_rows({"mIoU": scores["metrics"]["miou"], **scores["iou"]})]
    lines += ["", "mIoU by other rules of scoring", *format_rows(scores["variants"])]
    return "\n".join(lines)


def format_rows(values: Mapping[str, float | None]) -> list[str]:
    width = max(map(len, values))
    return [
        f"  {name:{width}}  " + ("not defined" if value is None else f"{100 * value:6.2f}")
        for name, value in values.items()
    ]
