"""Pascal VOC 2012, and its training images augmented by SBD to the 10,582 of DeepLab's papers.

Sources: http://host.robots.ox.ac.uk/pascal/VOC/voc2012, and the Semantic Boundaries Dataset of
Hariharan et al. (ICCV 2011), which labels 11,355 images of VOC, some of VOC's val among them.
"""

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from deeplab_bench.data.archives import Archive
from deeplab_bench.data.voc_layout import DataError, Pixels, VocFolder, read_lines, write_label


@dataclass(frozen=True)
class Release:
    """The archives, and how many images each list has."""

    voc: Archive
    sbd: Archive
    counts: Mapping[str, int]


PUBLISHED = Release(
    voc=Archive(
        filename="VOCtrainval_11-May-2012.tar",
        # The host that VOC's page names has moved to the first of these.
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
    counts={"train": 1464, "val": 1449, "sbd_train": 8498, "sbd_val": 2857, "trainaug": 10582},
)
VOC_MEMBERS_UNDER = "VOCdevkit/VOC2012"
SBD_MEMBERS_UNDER = "benchmark_RELEASE/dataset"

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


def voc_folder(root: Path) -> VocFolder:
    """VOC in an extracted ``VOCdevkit``, which may be named itself or its ``VOC2012``."""
    inner = root / "VOC2012"
    return VocFolder(inner if inner.is_dir() else root)


def sbd_folder(root: Path) -> Path:
    """SBD in an extracted ``benchmark_RELEASE``, which may be named itself or its ``dataset``."""
    inner = root / "dataset"
    return inner if inner.is_dir() else root


def check_count(where: object, names: Collection[str], expected: int) -> None:
    """
    Raises:
        DataError: there are not as many names as were published.
    """
    if len(names) != expected:
        advice = "take the whole data set, unchanged, or give yours as `dataset: folder`"
        raise DataError(f"{where} has {len(names)} images instead of {expected}: {advice}")


def add_sbd(voc: VocFolder, sbd: Path, destination: Path, counts: Mapping[str, int]) -> VocFolder:
    """Make the new folder ``destination`` in VOC's layout, with the splits trainaug and val.

    Its images are a link to those of ``voc``, which has all of SBD's. What VOC labels keeps VOC's
    own masks; for the others of trainaug SBD's are converted.

    Raises:
        DataError: a list is not whole, or a label is missing or damaged; the message names it.
    """
    splits = {"trainaug": trainaug_names(voc, sbd, counts), "val": voc.names("val")}
    labelled_by_voc = {*voc.names("train"), *splits["val"]}
    made = VocFolder(destination)
    for folder in (made.root / "SegmentationClass", made.listing("val").parent):
        folder.mkdir(parents=True)
    (made.root / "JPEGImages").symlink_to((voc.root / "JPEGImages").resolve())
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
                advice = "extract the archives anew, or see to the disk, and run again"
                raise DataError(f"label of {name} in {split}: {error}; {advice}") from error
    return made


def trainaug_names(voc: VocFolder, sbd: Path, counts: Mapping[str, int]) -> list[str]:
    """The sorted names of (VOC train + SBD train + SBD val) - VOC val.

    Raises:
        DataError: a list, or what is made of them, has not as many names as were published.
    """
    listings = {
        "train": voc.listing("train"),
        "val": voc.listing("val"),
        "sbd_train": sbd / "train.txt",
        "sbd_val": sbd / "val.txt",
    }
    lists = {}
    for key, listing in listings.items():
        lists[key] = set(read_lines(listing, "extract the archive anew"))
        check_count(listing, lists[key], counts[key])
    names = (lists["train"] | lists["sbd_train"] | lists["sbd_val"]) - lists["val"]
    check_count(f"trainaug of {voc.root} and {sbd}", names, counts["trainaug"])
    return sorted(names)


def read_sbd_label(path: Path) -> Pixels:
    """Class indices (H, W); SBD has no void.

    Raises:
        DataError: the file is missing, damaged, or none of SBD's.
    """
    try:
        label = loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except Exception as error:  # scipy stumbles over a damaged file in many ways
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: {reason}; extract SBD's archive anew") from error
    if label.dtype != np.uint8 or label.ndim != 2:
        found = f"{label.dtype} of shape {label.shape}"
        raise DataError(f"{path}: Segmentation is {found} instead of uint8 (H, W)")
    return label
