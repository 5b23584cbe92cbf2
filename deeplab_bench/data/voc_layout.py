"""Folders in Pascal VOC's layout: paths, reading, and checking.

Images are ``JPEGImages/<name>.jpg`` or ``.png``. Labels are ``SegmentationClass/<name>.png``, whose
pixel values are class indices, and 255 for void. ``ImageSets/Segmentation/<split>.txt`` lists the
names of a split, one per line.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.pixels import VOID, DataError, Pixels


@dataclass(frozen=True)
class VocFolder:
    """A folder in Pascal VOC's layout."""

    root: Path

    def listing(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def names(self, split: str) -> list[str]:
        """Return the image names of a split, in the order of its list."""
        return read_lines(self.listing(split), f"list the names of the {split} images in it")

    def classes(self) -> list[str]:
        """Return the class names in ``classes.txt``, one per line, index 0 first."""
        path = self.root / "classes.txt"
        return read_lines(path, "list the class names in it, index 0 first")

    def image_path(self, name: str) -> Path:
        folder = self.root / "JPEGImages"
        png = folder / f"{name}.png"
        return png if png.is_file() else folder / f"{name}.jpg"

    def label_path(self, name: str) -> Path:
        return self.root / "SegmentationClass" / f"{name}.png"

    def context_radius_path(self, name: str) -> Path:
        """Return the path of the context radii, a grey PNG that only generated images have."""
        return self.root / "ContextRadius" / f"{name}.png"


def read_lines(path: Path, remedy: str) -> list[str]:
    """Return the names in a file, one per line.

    Raises:
        DataError: the file is missing or empty, or repeats a name.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: {remedy}")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [line for line in lines if line]
    if not names:
        raise DataError(f"{path} is empty: {remedy}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{path} repeats names: {_listed(repeated)}")
    return names


def read_image(path: Path) -> Pixels:
    """Return the RGB image, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_label(path: Path) -> Pixels:
    """Return the class indices, uint8 (H, W); the palette's colours are ignored.

    Raises:
        DataError: the file is neither a palette image nor a grey one.
    """
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            raise DataError(f"{path} is a {image.mode} image")
        return np.asarray(image)


def check(folder: VocFolder, names: Iterable[str], num_classes: int, *, title: str) -> None:
    """Check every pair of image and label.

    Raises:
        DataError: a file is missing or damaged, an image and its label differ in size, or a label
            is no palette or grey PNG, is void everywhere, or has a value that is neither a class
            nor void. The message names up to ten files.
    """
    problems: dict[str, list[str]] = {}
    for name in tqdm(list(names), desc=f"checking {title}", unit="image"):
        for remedy, finding in _check_pair(folder, name, num_classes):
            problems.setdefault(remedy, []).append(finding)
    if problems:
        reports = [f"{remedy}: {_listed(findings)}" for remedy, findings in problems.items()]
        raise DataError(f"{folder.root}: " + "; ".join(reports))


def _check_pair(folder: VocFolder, name: str, num_classes: int) -> Iterable[tuple[str, str]]:
    image_path, label_path = folder.image_path(name), folder.label_path(name)
    missing = [path for path in (image_path, label_path) if not path.is_file()]
    if missing:
        for path in missing:
            yield "add the missing files, or remove their names from the split's list", str(path)
        return
    for path in (image_path, label_path):
        if is_damaged(path):
            yield "replace the damaged files", str(path)
            return
    try:
        label = read_label(label_path)
    except DataError as error:
        yield "save labels as palette or grey PNGs of class indices", str(error)
        return
    with Image.open(image_path) as image:
        size = image.size
    if label.shape[::-1] != size:
        finding = f"{label_path} {label.shape[::-1]}, its image {size}"
        yield "give label and image the same (width, height)", finding
    values = np.unique(label)
    if (values == VOID).all():
        yield "remove images without any pixel of the classes from the list", str(label_path)
    outside = values[(values >= num_classes) & (values != VOID)]
    if outside.size:
        remedy = f"use labels 0 to {num_classes - 1}, and {VOID} for void"
        yield remedy, f"{label_path} has {', '.join(map(str, outside))}"


def check_images(folder: VocFolder, names: Iterable[str], *, title: str) -> None:
    """Check every image of a split without labels.

    Raises:
        DataError: an image is missing or damaged. The message names up to ten files.
    """
    paths = [folder.image_path(name) for name in names]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise DataError(f"{folder.root}: add the missing files: {_listed(missing)}")
    shown = tqdm(paths, desc=f"checking {title}", unit="image")
    if damaged := [str(path) for path in shown if is_damaged(path)]:
        raise DataError(f"{folder.root}: replace the damaged files: {_listed(damaged)}")


def is_damaged(path: Path) -> bool:
    """Return whether an image cannot be decoded completely."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError):
        return True
    return False


def _listed(findings: Iterable[str], limit: int = 10) -> str:
    findings = list(findings)
    more = f" and {len(findings) - limit} more" if len(findings) > limit else ""
    return f"{len(findings)} found: " + ", ".join(findings[:limit]) + more
