"""Scores of label files: what another network predicted for the images of a split."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.image_files import read_label
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, DataError, Pixels
from deeplab_bench.evaluation.evaluate import measure_predictions
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, find_background
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.evaluation.measures.variants import (
    VARIANTS,
    Counts,
    centre_crop,
    resized_labels,
)

# The variants that need no further prediction of the network.
OF_LABELS = {
    name: variant
    for name, variant in VARIANTS.items()
    if variant not in (resized_labels, centre_crop)
}


def score_label_files(folder: Path, split: Split) -> dict[str, Any]:
    """Score the files ``<name of the image>.png`` of class indices as the stage ``evaluate`` does.

    ``variants`` are the scoring variants of ``protocol_audit`` that label files suffice for.
    ``labels_sha256`` is a digest of all predicted pixels. Further files in the folder do not count.

    Raises:
        DataError: files are missing, hold no class indices, or are of another size than the image.
    """
    files = find_label_files(folder, split)
    digest, classes = hashlib.sha256(), len(split.classes)
    per_image = np.zeros((len(split), classes, classes), dtype=np.int64)
    on_void = np.zeros(classes, dtype=np.int64)

    def predict() -> Iterator[tuple[int, Pixels]]:
        for index, path in enumerate(tqdm(files, desc=f"scoring {folder}", unit="image")):
            prediction, label = read_prediction(path, classes), split.label(index)
            digest.update(prediction.tobytes())
            per_image[index] = confusion_matrix(label, prediction, classes)
            on_void[:] += np.bincount(prediction[label == VOID], minlength=classes)
            yield index, prediction

    measured = measure_predictions(split, predict())
    unused = np.zeros((classes, classes), dtype=np.int64)
    counts = Counts(per_image, unused, unused, on_void, find_background(split.classes))
    images = measured.pop("images")
    return {
        "labels_sha256": digest.hexdigest(),
        "classes": split.classes,
        **measured,
        "variants": {name: round_fraction(variant(counts)) for name, variant in OF_LABELS.items()},
        "images": images,
    }


def find_label_files(folder: Path, split: Split) -> list[Path]:
    """Find the file of each image; only their headers are read.

    Raises:
        DataError: the folder or files of it are missing, or are of another size than the image.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give the one with the label PNGs")
    files = [folder / f"{name}.png" for name in split.names]
    if missing := [path.name for path in files if not path.is_file()]:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(files)} label PNGs, such as {missing[0]}: name "
            "each as its image"
        )
    for path, (height, width) in zip(files, split.sizes, strict=True):
        try:
            with Image.open(path) as image:
                found = image.size
        except (OSError, SyntaxError, Image.DecompressionBombError):
            raise DataError(f"{path} is damaged or no image: write it again") from None
        if found != (width, height):
            raise DataError(
                f"{path} has {found[0]}x{found[1]} px, its image {width}x{height}: predict at the "
                "size of the image, or resize the logits to it, not the labels"
            )
    return files


def read_prediction(path: Path, classes: int) -> Pixels:
    """Read class indices (H, W).

    Raises:
        DataError: the file holds something else.
    """
    prediction = read_label(path)
    if prediction.max() >= classes:
        raise DataError(
            f"{path} has the value {prediction.max()}: predict a class of 0 to {classes - 1} for "
            "every pixel"
        )
    return prediction
