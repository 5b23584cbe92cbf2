"""Pascal VOC 2012, with or without the extra labels of SBD for training.

The DeepLab papers train on "trainaug": VOC's training images and those that SBD labels, without
VOC's validation images, 10,582 in all. SBD is the Semantic Boundaries Dataset of Hariharan et al.
(ICCV 2011), with labels for 11,355 images of VOC. VOC is at
http://host.robots.ox.ac.uk/pascal/VOC/voc2012.

For VOC's test server, DeepLabv3 (Section 4.1) goes on with "trainval", the 2,913 images that VOC
itself labels. It contains val, so that no score on val says anything afterwards.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from deeplab_bench.data.archives import Archive, unpack
from deeplab_bench.data.dataset import Address, DataSet
from deeplab_bench.data.voc_layout import (
    DataError,
    Pixels,
    VocFolder,
    check_images,
    read_image,
    read_lines,
    write_label,
)


@dataclass(frozen=True)
class Release:
    """The published archives, and the number of images in each list."""

    voc: Archive
    sbd: Archive
    counts: Mapping[str, int]


PUBLISHED = Release(
    voc=Archive(
        filename="VOCtrainval_11-May-2012.tar",
        # VOC's page names the second address; the files have moved to the first.
        urls=(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        ),
        size_bytes=1_999_639_040,
        digest="md5:6cd6e144f989b92b3379bac3b3de84fd",
    ),
    sbd=Archive(
        filename="benchmark.tgz",
        urls=(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
        ),
        size_bytes=1_419_539_633,
        digest="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    ),
    counts={
        "train": 1464,
        "val": 1449,
        "trainval": 2913,
        "sbd_train": 8498,
        "sbd_val": 2857,
        "trainaug": 10582,
        "test": 1456,
    },
)
VOC_MEMBERS_UNDER = "VOCdevkit/VOC2012"
SBD_MEMBERS_UNDER = "benchmark_RELEASE/dataset"
TYPICAL_PIXELS = 375 * 500
EVALUATION_SERVER = "http://host.robots.ox.ac.uk:8080"

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


class VocData(DataSet):
    """Pascal VOC 2012; ``train_split`` ``trainaug`` needs SBD, too.

    ``further_splits`` are packed as well, for a second phase of training (its ``train_split``).
    Runs that train on ``trainval`` have seen all of val: their scores on it are marked.

    ``root`` is an extracted ``VOCdevkit`` or its folder ``VOC2012``, ``sbd_root`` an extracted
    ``benchmark_RELEASE`` or its folder ``dataset``. Each replaces one download. Without
    ``sbd_root``, a ``root`` that lists ``trainaug`` needs no SBD.
    """

    folder_keys: ClassVar[Mapping[str, str]] = {
        "root": "an extracted VOCdevkit",
        "sbd_root": "an extracted benchmark_RELEASE of SBD",
    }

    dataset: Literal["voc2012"]
    train_split: Literal["train", "trainaug", "trainval"]
    further_splits: tuple[Literal["trainval"], ...] = ()
    mirrors: tuple[Address, ...] = ()
    sbd_mirrors: tuple[Address, ...] = ()
    root: str | None = None
    sbd_root: str | None = None

    def archives(self) -> list[Archive]:
        archives = []
        if self.root is None:
            archives.append(PUBLISHED.voc.with_mirrors(self.mirrors))
        if self._needs_sbd() and self.sbd_root is None:
            archives.append(PUBLISHED.sbd.with_mirrors(self.sbd_mirrors))
        return archives

    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        if self.root is None:
            archive, root = downloads / PUBLISHED.voc.filename, unpacked / "VOC2012"
            unpack(archive, root, members_under=VOC_MEMBERS_UNDER)
        voc = find_voc(unpacked if self.root is None else Path(self.root))
        checked = ["val", *self.further_splits]
        if not self._needs_sbd():
            checked.append(self.train_split)
        for split in checked:
            check_count(voc.listing(split), voc.names(split), PUBLISHED.counts[split])
        if not self._needs_sbd():
            return voc
        if self.sbd_root is None:
            archive, root = downloads / PUBLISHED.sbd.filename, unpacked / "dataset"
            unpack(archive, root, members_under=SBD_MEMBERS_UNDER)
        sbd = find_sbd(unpacked if self.sbd_root is None else Path(self.sbd_root))
        return add_sbd(voc, sbd, unpacked / "trainaug", self.further_splits)

    def class_names(self) -> list[str]:
        return list(CLASSES)

    def train_names(self, source: VocFolder) -> list[str]:
        return source.names(self.train_split)

    def list_further_splits(self) -> tuple[str, ...]:
        return self.further_splits

    def trains_on_val(self) -> bool:
        return self.train_split == "trainval"

    def estimate_pixels(self) -> int:
        splits = (self.train_split, *self.further_splits, "val")
        return sum(PUBLISHED.counts[split] for split in splits) * TYPICAL_PIXELS

    def describe(self, validation: str) -> str:
        return f"Pascal VOC 2012, trained on its split `{self.train_split}` ({validation})"

    def _needs_sbd(self) -> bool:
        if self.train_split != "trainaug":
            return False
        if self.root is None or self.sbd_root is not None:
            return True
        return not find_voc(Path(self.root)).listing("trainaug").is_file()


@dataclass(frozen=True)
class UnlabelledImages:
    """The images of VOC's test split, whose labels only the evaluation server has."""

    folder: VocFolder
    names: list[str]

    def image(self, index: int) -> Pixels:
        """Decode an RGB image, uint8 (H, W, 3)."""
        return read_image(self.folder.image_path(self.names[index]))


def open_test_images(root: str) -> UnlabelledImages:
    """Check the test split of segmentation in a folder, and return its images sorted by name.

    ``root`` is the extracted ``VOCdevkit`` of VOC's test images, or its folder ``VOC2012``.

    Raises:
        DataError: the folder, its list or an image is missing, or an image is damaged.
    """
    remedy = (
        f"log in at {EVALUATION_SERVER}, download VOC2012test.tar, extract it, "
        "and give its VOCdevkit: `--images`, or `IMAGES=` of make"
    )
    if not root:
        raise DataError(f"VOC's test images cannot be downloaded without a login: {remedy}")
    folder = find_voc(Path(root))
    names = sorted(read_lines(folder.listing("test"), remedy))
    check_count(folder.listing("test"), names, PUBLISHED.counts["test"])
    check_images(folder, names, title="test")
    return UnlabelledImages(folder, names)


def find_voc(root: Path) -> VocFolder:
    """Return VOC in ``root``, which is an extracted ``VOCdevkit`` or its folder ``VOC2012``."""
    inner = root / "VOC2012"
    return VocFolder(inner if inner.is_dir() else root)


def find_sbd(root: Path) -> Path:
    """Return SBD in ``root``, an extracted ``benchmark_RELEASE`` or its folder ``dataset``."""
    inner = root / "dataset"
    return inner if inner.is_dir() else root


def check_count(where: object, names: Collection[str], expected: int) -> None:
    """Check the number of names against the published one.

    Raises:
        DataError: the numbers differ.
    """
    if len(names) != expected:
        advice = "use the complete, unchanged data set, or give yours as `dataset: folder`"
        raise DataError(f"{where} has {len(names)} images instead of {expected}: {advice}")


def add_sbd(
    voc: VocFolder, sbd: Path, destination: Path, further_splits: Collection[str] = ()
) -> VocFolder:
    """Make the new folder ``destination`` in VOC's layout, with the splits trainaug and val.

    Images are a link to those of ``voc``, which include all of SBD's. Images that VOC labels keep
    VOC's labels; for the others, SBD's labels are converted. The lists of ``further_splits`` are
    copied; they have no images but those of trainaug and val.

    Raises:
        DataError: a list is incomplete, or a label is missing or damaged; the message names it.
    """
    splits = {"trainaug": read_trainaug_names(voc, sbd), "val": voc.names("val")}
    labelled_by_voc = {*voc.names("train"), *splits["val"]}
    made = VocFolder(destination)
    for folder in (made.root / "SegmentationClass", made.listing("val").parent):
        folder.mkdir(parents=True)
    (made.root / "JPEGImages").symlink_to((voc.root / "JPEGImages").resolve())
    for split in further_splits:
        shutil.copyfile(voc.listing(split), made.listing(split))
    for split, names in splits.items():
        made.listing(split).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for name in tqdm(names, desc=f"labels of {split}", unit="image"):
            try:
                if name in labelled_by_voc:
                    shutil.copyfile(voc.label_path(name), made.label_path(name))
                else:
                    label = read_sbd_label(sbd / "cls" / f"{name}.mat")
                    write_label(made.label_path(name), label)
            except OSError as error:
                advice = "extract the archives again, or check the disk, and run again"
                raise DataError(f"label of {name} in {split}: {error}; {advice}") from error
    return made


def read_trainaug_names(voc: VocFolder, sbd: Path) -> list[str]:
    """Return the sorted names of (VOC train + SBD train + SBD val) - VOC val.

    Raises:
        DataError: a list or the result has another number of names than published.
    """
    listings = {
        "train": voc.listing("train"),
        "val": voc.listing("val"),
        "sbd_train": sbd / "train.txt",
        "sbd_val": sbd / "val.txt",
    }
    lists = {}
    for key, listing in listings.items():
        lists[key] = set(read_lines(listing, "extract the archive again"))
        check_count(listing, lists[key], PUBLISHED.counts[key])
    names = (lists["train"] | lists["sbd_train"] | lists["sbd_val"]) - lists["val"]
    check_count(f"trainaug of {voc.root} and {sbd}", names, PUBLISHED.counts["trainaug"])
    return sorted(names)


def read_sbd_label(path: Path) -> Pixels:
    """Return the class indices of a label of SBD, uint8 (H, W), without void.

    Raises:
        DataError: the file is missing, damaged, or no label of SBD.
    """
    try:
        label = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy raises many types for damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: {reason}; extract SBD's archive again") from error
    if label.dtype != np.uint8 or label.ndim != 2:
        found = f"{label.dtype} of shape {label.shape}"
        raise DataError(f"{path}: Segmentation is {found} instead of uint8 (H, W)")
    return label
