"""Splits packed into flat arrays, so that training decodes no image files."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_bench.data.pixels import DataError, Pixels

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Split:
    """The images and labels of a split, memory-mapped.

    ``images``, ``labels`` and ``context_radii`` are flat uint8 arrays of all images one after the
    other. ``sizes`` are (height, width) in pixels. ``starts`` are the indices of each image's first
    pixel in ``labels``. Only generated images have ``context_radii``.
    """

    names: list[str]
    sizes: list[tuple[int, int]]
    classes: list[str]
    images: Pixels
    labels: Pixels
    starts: list[int]
    context_radii: Pixels | None = None

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Pixels:
        """Return an RGB image, uint8 (H, W, 3)."""
        height, width = self.sizes[index]
        start = 3 * self.starts[index]
        return self.images[start : start + 3 * height * width].reshape(height, width, 3)

    def label(self, index: int) -> Pixels:
        """Return the class indices of an image, uint8 (H, W); void is 255."""
        return self._map(self.labels, index)

    def context_radius(self, index: int) -> Pixels | None:
        """Return the context radius of every pixel (H, W), see ``compute_context_radii``."""
        return None if self.context_radii is None else self._map(self.context_radii, index)

    def _map(self, maps: Pixels, index: int) -> Pixels:
        height, width = self.sizes[index]
        start = self.starts[index]
        return maps[start : start + height * width].reshape(height, width)


def load_split(folder: Path, split: str) -> Split:
    """Open a packed split.

    Raises:
        DataError: the split is missing or incomplete.
    """
    manifest = read_manifest(folder)
    if split not in manifest["splits"]:
        command = f"dvc repro prepare@{folder.name}"
        raise DataError(f"{folder} has no split {split!r}: run `{command}`")
    content = manifest["splits"][split]
    sizes = [(height, width) for height, width in content["sizes"]]
    areas = [height * width for height, width in sizes]
    total = sum(areas)
    images, labels = (
        _open_array(path, size, folder)
        for path, size in zip(array_files(folder, split), (3 * total, total), strict=True)
    )
    starts = [0, *np.cumsum(areas).tolist()[:-1]]
    radii = None
    if "context_radius_sha256" in content:
        radii = _open_array(context_radii_file(folder, split), total, folder)
    return Split(content["names"], sizes, manifest["classes"], images, labels, starts, radii)


def read_manifest(folder: Path) -> Any:
    return json.loads(_manifest_bytes(folder))


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path} is missing: run `dvc repro prepare@{folder.name}`")
    return path.read_bytes()


def compute_data_sha256(folder: Path) -> str:
    """Compute a digest of all that training and evaluation see.

    Raises:
        DataError: the data have not been prepared.
    """
    return hashlib.sha256(_manifest_bytes(folder)).hexdigest()


def array_files(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / f"{split}.images.bin", folder / f"{split}.labels.bin"


def context_radii_file(folder: Path, split: str) -> Path:
    return folder / f"{split}.context_radii.bin"


def _open_array(path: Path, size: int, folder: Path) -> Pixels:
    if not path.is_file() or path.stat().st_size != size:
        command = f"dvc repro --single-item --force prepare@{folder.name}"
        raise DataError(f"{path} is missing or incomplete: run `{command}`")
    return np.memmap(path, dtype=np.uint8, mode="r")


def pick_evenly(count: int, total: int) -> list[int]:
    """Pick ``count`` of ``total`` indices, evenly spaced; all if there are fewer."""
    count = min(count, total)
    return [index * total // count for index in range(count)]
