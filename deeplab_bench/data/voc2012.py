"""Pascal VOC 2012, with or without the extra labels of SBD for training.

The DeepLab papers train on "trainaug": VOC's training images and those that SBD labels, without
VOC's validation images, 10,582 in all. SBD is the Semantic Boundaries Dataset of Hariharan et al.
(ICCV 2011), with labels for 11,355 images of VOC. VOC is at
http://host.robots.ox.ac.uk/pascal/VOC/voc2012.

For VOC's test server, DeepLabv3 (Section 4.1) goes on with "trainval", the 2,913 images that VOC
itself labels. It contains val, so that no score on val says anything afterwards.

A profile may choose some of the classes and list the photographs that it uses.
"""

import hashlib
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, model_validator

from deeplab_bench.data.archives import Archive, unpack
from deeplab_bench.data.dataset import Address, DataSet
from deeplab_bench.data.image_files import read_image
from deeplab_bench.data.pixels import DataError, Pixels
from deeplab_bench.data.voc_labels import CLASSES, collect
from deeplab_bench.data.voc_layout import VocFolder, check_images, read_image_names
from deeplab_bench.errors import suggest_nearest


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


def check_classes(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse what is no choice of VOC's classes; return the rest."""
    for name in classes:
        if name not in CLASSES:
            raise ValueError(f"{name!r} is not a class of VOC{suggest_nearest(name, CLASSES)}")
    if classes[:1] != CLASSES[:1] or len(classes) < 2:
        raise ValueError(f"name {CLASSES[0]} first, and one class or more after it")
    if len(set(classes)) < len(classes):
        raise ValueError("it names one of them twice")
    return classes


class VocData(DataSet):
    """Pascal VOC 2012, with or without SBD.

    Runs that train on ``trainval`` have seen all of val: their scores on it are marked.

    The lists of ``images`` have one photograph of VOC a line. Those in ``train.txt`` are of
    ``train_split``, those in ``val.txt`` of VOC's val. Pixels of other classes than ``classes`` are
    void. ``classes`` needs ``images``, since many photographs show none of a few classes.

    Without ``sbd_root``, a ``root`` that lists ``trainaug`` needs no SBD, nor does one whose list
    ``train`` has all photographs of ``images``. With ``images``, ``root`` needs no other
    photographs.
    """

    folder_keys: ClassVar[Mapping[str, str]] = {
        "root": "an extracted VOCdevkit",
        "sbd_root": "an extracted benchmark_RELEASE of SBD",
    }

    dataset: Literal["voc2012"]
    """The name of the data set."""
    train_split: Literal["train", "trainaug", "trainval"] = "trainaug"
    """The images to train on; ``trainaug`` needs SBD, ``trainval`` contains val."""
    further_splits: tuple[Literal["trainval"], ...] = ()
    """Splits that are packed, too, for a second phase of training."""
    classes: Annotated[tuple[str, ...], AfterValidator(check_classes)] = CLASSES
    """Some of VOC's classes in their order, ``background`` first; it needs ``images``."""
    images: str | None = None
    """A folder with ``train.txt`` and ``val.txt``, which list the photographs to use."""
    mirrors: tuple[Address, ...] = ()
    """Further addresses of VOC's archive."""
    sbd_mirrors: tuple[Address, ...] = ()
    """Further addresses of SBD's archive."""
    root: str | None = None
    """An extracted ``VOCdevkit`` or its folder ``VOC2012``, in place of the download."""
    sbd_root: str | None = None
    """An extracted ``benchmark_RELEASE`` or its folder ``dataset``, in place of the download."""

    @model_validator(mode="after")
    def _lists_fit(self) -> "VocData":
        if self.images is None and self.classes != CLASSES:
            raise ValueError("classes needs images, a folder with lists of photographs to use")
        if self.images is not None and "trainval" in (self.train_split, *self.further_splits):
            raise ValueError("images goes with the train_split train or trainaug alone")
        return self

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
        if self.images is None:
            self._check_counts(voc)
        sbd = self._open_sbd(downloads, unpacked) if self._needs_sbd() else None
        if self.images is not None:
            self._check_lists(voc, sbd)
            return collect(voc, sbd, self.read_lists(), unpacked / "listed", self.classes)
        return voc if sbd is None else add_sbd(voc, sbd, unpacked / "trainaug", self.further_splits)

    def class_names(self) -> list[str]:
        return list(self.classes)

    def digest_files(self) -> dict[str, str]:
        self.read_lists()
        return {
            path.as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self._find_lists().values()
        }

    def read_lists(self) -> dict[str, list[str]]:
        """Return the listed photographs by split; none without ``images``.

        Raises:
            DataError: a list is missing or empty, or a photograph is listed twice.
        """
        remedy = "list photographs of VOC in it by their names, one per line"
        names = {
            split: read_image_names(path, remedy) for split, path in self._find_lists().items()
        }
        if both := sorted(set(names.get("train", ())) & set(names.get("val", ()))):
            raise DataError(
                f"{self.images}: train.txt and val.txt share {len(both)} photographs, such as "
                f"{both[0]}: remove them from one of the two"
            )
        return names

    def train_names(self, source: VocFolder) -> list[str]:
        return source.names(self.train_split if self.images is None else "train")

    def list_further_splits(self) -> tuple[str, ...]:
        return self.further_splits

    def trains_on_val(self) -> bool:
        return self.train_split == "trainval"

    def estimate_pixels(self) -> int:
        splits = (self.train_split, *self.further_splits, "val")
        counts = [len(names) for names in self.read_lists().values()] or [
            PUBLISHED.counts[split] for split in splits
        ]
        return sum(counts) * TYPICAL_PIXELS

    def describe(self, validation: str) -> str:
        if self.images is None:
            return f"Pascal VOC 2012, trained on its split `{self.train_split}` ({validation})"
        return (
            f"Pascal VOC 2012 in {len(self.classes)} of its {len(CLASSES)} classes, on the "
            f"photographs listed in `{self.images}` ({validation})"
        )

    def is_as_published(self) -> bool:
        return self.images is None

    def warn(self) -> str:
        if self.is_as_published():
            return ""
        return f"published figures are on all of VOC's {PUBLISHED.counts['val']:,} val images"

    def _find_lists(self) -> dict[str, Path]:
        if self.images is None:
            return {}
        return {split: Path(self.images, f"{split}.txt") for split in ("train", "val")}

    def _check_counts(self, voc: VocFolder) -> None:
        counted = ["val", *self.further_splits]
        if not self._needs_sbd():
            counted.append(self.train_split)
        for split in counted:
            check_count(voc.listing(split), voc.names(split), PUBLISHED.counts[split])

    def _open_sbd(self, downloads: Path, unpacked: Path) -> Path:
        if self.sbd_root is None:
            archive, root = downloads / PUBLISHED.sbd.filename, unpacked / "dataset"
            unpack(archive, root, members_under=SBD_MEMBERS_UNDER)
        return find_sbd(unpacked if self.sbd_root is None else Path(self.sbd_root))

    def _check_lists(self, voc: VocFolder, sbd: Path | None) -> None:
        """Check that the source has all listed photographs.

        Raises:
            DataError: it lacks some.
        """
        split = self._find_train_split(voc)
        train = voc.names(split) if sbd is None else read_trainaug_names(voc, sbd)
        known = {"train": set(train), "val": set(voc.names("val"))}
        for split, names in self.read_lists().items():
            if unknown := sorted(set(names) - known[split]):
                of = self.train_split if split == "train" else split
                raise DataError(
                    f"{self._find_lists()[split]} lists {len(unknown)} photographs that are not in "
                    f"{of} of {voc.root}, such as {unknown[0]}: remove them from the list"
                )

    def _needs_sbd(self) -> bool:
        if self.train_split != "trainaug":
            return False
        if self.root is None or self.sbd_root is not None:
            return True
        voc = find_voc(Path(self.root))
        if self.images is None:
            return not voc.listing("trainaug").is_file()
        return not set(self.read_lists()["train"]) <= set(voc.names(self._find_train_split(voc)))

    def _find_train_split(self, voc: VocFolder) -> str:
        """Return the list of a folder that has the labelled photographs of ``train_split``."""
        return self.train_split if voc.listing(self.train_split).is_file() else "train"


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
    names = sorted(read_image_names(folder.listing("test"), remedy))
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

    The lists of ``further_splits`` are copied; they have no images but those of trainaug and val.

    Raises:
        DataError: a list is incomplete, or a label is missing or damaged; the message names it.
    """
    splits = {"trainaug": read_trainaug_names(voc, sbd), "val": voc.names("val")}
    made = collect(voc, sbd, splits, destination)
    for split in further_splits:
        shutil.copyfile(voc.listing(split), made.listing(split))
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
        lists[key] = set(read_image_names(listing, "extract the archive again"))
        check_count(listing, lists[key], PUBLISHED.counts[key])
    names = (lists["train"] | lists["sbd_train"] | lists["sbd_val"]) - lists["val"]
    check_count(f"trainaug of {voc.root} and {sbd}", names, PUBLISHED.counts["trainaug"])
    return sorted(names)
