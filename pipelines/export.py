"""Command ``export``: a trained network as a file that other programs run."""

from pathlib import Path
from typing import Annotated

from deeplab_bench.prediction.export import check_target, export
from deeplab_bench.prediction.predictor import load


def main(
    checkpoint: Annotated[str, "the checkpoint of the network"],
    path: Annotated[str, "the file to write: `.onnx` or, for `torch.export`, `.pt2`"],
    *,
    height: Annotated[int, "of the images, in pixels"] = 513,
    width: Annotated[int, "of the images, in pixels"] = 513,
) -> None:
    """
    Raises:
        CheckpointError: the checkpoint cannot be used.
        ExportError: the file's suffix is not known, or a package is missing.
    """
    check_target(Path(path))
    predictor = load(checkpoint)
    export(predictor, Path(path), height, width)
    print(f"{path}: RGB images (N, 3, {height}, {width}) of 0 to 255 -> logits of ", end="")
    print(", ".join(predictor.classes))
