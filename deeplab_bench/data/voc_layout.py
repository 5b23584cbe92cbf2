"""Folders in Pascal VOC's layout: paths, reading, and checking.

Images are ``JPEGImages/<name>.jpg``, ``.jpeg`` or ``.png``. Labels are
``SegmentationClass/<name>.png``, whose pixel values are class indices, and 255 for void.
``ImageSets/Segmentation/<split>.txt`` lists the names of a split, one per line.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.image_files import Fault, decode_label, find_image_fault, find_label_fault
from deeplab_bench.data.pixels import VOID, DataError

SUFFIXES = (".jpg", ".jpeg", ".png")
HEAD_OF_TABLES = "model"  # the column beside those of the classes


@dataclass(frozen=True)
class VocFolder:
    """A folder in Pascal VOC's layout."""

    root: Path

    def listing(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def names(self, split: str) -> list[str]:
        """Return the image names of a split, in the order of its list."""
        return read_image_names(self.listing(split), f"list the names of the {split} images in it")

    def classes(self) -> list[str]:
        """Return the class names in ``classes.txt``, one per line, index 0 first.

        Raises:
            DataError: ``read_lines`` refuses the file, or a class has the name ``HEAD_OF_TABLES``.
        """
        path = self.root / "classes.txt"
        names = read_lines(path, "list the class names in it, index 0 first")
        if HEAD_OF_TABLES in names:
            raise DataError(
                f"{path} has the class '{HEAD_OF_TABLES}', which is the name of another column of "
                "the tables: write another name"
            )
        return names

    def image_path(self, name: str) -> Path:
        """Return the path of an image; that with the suffix .jpg if there is none.

        Raises:
            DataError: several files have this name.
        """
        folder = self.root / "JPEGImages"
        found = _find_images(folder, name)
        if len(found) > 1:
            raise DataError(f"{found[0]} and {found[1].name} have one name: keep one of them")
        return found[0] if found else folder / f"{name}.jpg"

    def label_path(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def context_radius_path(self, name: str) -> Path:
        """Return the path of the context radii, a grey PNG that only generated images have."""
        return self.root / "ContextRadius" / f"{name}.png"


def read_lines(path: Path, remedy: str) -> list[str]:
    """Return the names in a text file, one per line.

    Raises:
        DataError: the file is missing, empty or no text in UTF-8, or repeats a name.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: {remedy}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is no text in UTF-8: save it in this encoding") from None
    names = [line for line in map(str.strip, text.splitlines()) if line]
    if not names:
        raise DataError(f"{path} is empty: {remedy}")
    if unprintable := [name for name in names if not name.isprintable()]:
        raise DataError(
            f"{path} has characters that cannot be printed, in {unprintable[0]!r}: save it as text "
            "in UTF-8"
        )
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} repeats names: {_listed(repeated)}")
    return names


def read_image_names(path: Path, remedy: str) -> list[str]:
    """Return the image names in the list of a split, in its order.

    Raises:
        DataError: as ``read_lines``, or a line is a path or has the suffix of an image.
    """
    names = read_lines(path, remedy)
    for name in names:
        if "/" in name or "\\" in name or name.lower().endswith(SUFFIXES):
            meant = PurePosixPath(name.replace("\\", "/").split()[0]).name
            if meant.lower().endswith(SUFFIXES):
                meant = PurePosixPath(meant).stem
            raise DataError(
                f"{path} has the line {name!r}: write the name of the image alone, without folder "
                f"and suffix, here {meant!r}"
            )
    return names


def check(
    folder: VocFolder, names: Iterable[str], num_classes: int, *, title: str
) -> NDArray[np.int64]:
    """Check every pair of image and label.

    Returns:
        The number of pixels of every value in the labels (256).

    Raises:
        DataError: a file is missing or damaged, its pixels could be misread (see ``image_files``),
            an image and its label differ in size, or a label is void everywhere or has a value that
            is neither a class nor void. The message names up to ten files.
    """
    faults: list[Fault] = []
    pixels = np.zeros(256, dtype=np.int64)
    for name in tqdm(list(names), desc=f"checking {title}", unit="image"):
        faults += _check_pair(folder, name, num_classes, pixels)
    _refuse(folder, faults)
    return pixels


def _check_pair(
    folder: VocFolder, name: str, num_classes: int, pixels: NDArray[np.int64]
) -> Iterable[Fault]:
    image_path, label_path = folder.image_path(name), folder.label_path(name)
    missing = [path for path in (image_path, label_path) if not path.is_file()]
    if missing:
        for path in missing:
            remedy = "add the missing files, or remove their names from the split's list"
            yield Fault(remedy, str(path))
        return
    fault = find_image_fault(image_path) or find_label_fault(label_path)
    if fault:
        yield fault
        return
    label = decode_label(label_path)
    with Image.open(image_path) as image:
        size = image.size
    if label.shape[::-1] != size:
        finding = f"{label_path} {label.shape[::-1]}, its image {size}"
        yield Fault("give label and image the same (width, height)", finding)
    counts = np.bincount(label.reshape(-1), minlength=256)
    pixels += counts
    values = counts.nonzero()[0]
    if (values == VOID).all():
        remedy = "remove images without any pixel of the classes from the list"
        yield Fault(remedy, str(label_path))
    outside = values[(values >= num_classes) & (values != VOID)]
    if outside.size:
        remedy = f"use labels 0 to {num_classes - 1}, and {VOID} for void"
        yield Fault(remedy, f"{label_path} has {', '.join(map(str, outside))}")


def check_images(folder: VocFolder, names: Iterable[str], *, title: str) -> None:
    """Check every image of a split without labels.

    Raises:
        DataError: an image is missing, damaged, or could be misread (see ``image_files``). The
            message names up to ten files.
    """
    paths = [folder.image_path(name) for name in names]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataError(f"{folder.root}: add the missing files: {_listed(missing)}")
    shown = tqdm(paths, desc=f"checking {title}", unit="image")
    _refuse(folder, [fault for path in shown if (fault := find_image_fault(path))])


def _find_images(folder: Path, name: str) -> list[Path]:
    """Find the images of a name, with suffixes in lower or upper case."""
    both = [cased for suffix in SUFFIXES for cased in (suffix, suffix.upper())]
    return [path for suffix in both if (path := folder / f"{name}{suffix}").is_file()]


def _refuse(folder: VocFolder, faults: Iterable[Fault]) -> None:
    """Raise a ``DataError`` if there are faults: what was found, by remedy."""
    problems: dict[str, list[str]] = {}
    for remedy, finding in faults:
        problems.setdefault(remedy, []).append(finding)
    if problems:
        reports = [f"{remedy}: {_listed(findings)}" for remedy, findings in problems.items()]
        raise DataError(f"{folder.root}: " + "; ".join(reports))


def _listed(findings: Iterable[str], limit: int = 10) -> str:
    findings = list(findings)
    more = f" and {len(findings) - limit} more" if len(findings) > limit else ""
    return f"{len(findings)} found: " + ", ".join(findings[:limit]) + more
