"""Packing of a folder in Pascal VOC's layout into the flat arrays of ``packed``."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.image_files import read_image, read_label
from deeplab_bench.data.packed import MANIFEST, array_files, context_radii_file
from deeplab_bench.data.pixels import DataError
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.writing import describe_lack_of_room


def pack(source: VocFolder, splits: dict[str, list[str]], classes: list[str], folder: Path) -> None:
    """Decode every image and label of ``source`` into flat arrays in ``folder``.

    The manifest holds the names and sizes of each split and a digest of its pixels, and of its
    context radii if the source has them. It is written last: without it, the arrays are incomplete.

    Raises:
        DataError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    needed = sum(_packed_bytes(source, name) for names in splits.values() for name in names)
    if lack := describe_lack_of_room(folder, needed):
        raise DataError(f"{folder}: not packed, {lack}; make room and run again")
    contents = {split: _pack_split(source, split, names, folder) for split, names in splits.items()}
    manifest = {"classes": classes, "splits": contents}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _packed_bytes(source: VocFolder, name: str) -> int:
    """Return the packed size of an image and its maps; reads only the image's header."""
    with Image.open(source.image_path(name)) as image:
        maps = 1 + source.context_radius_path(name).is_file()
        return (3 + maps) * image.width * image.height


def _pack_split(source: VocFolder, split: str, names: Sequence[str], folder: Path) -> Any:
    digest, sizes = hashlib.sha256(), []
    images_path, labels_path = array_files(folder, split)
    with images_path.open("wb") as images, labels_path.open("wb") as labels:
        for name in tqdm(names, desc=f"packing {split}", unit="image"):
            image = read_image(source.image_path(name))
            label = read_label(source.label_path(name))
            images.write(image.tobytes())
            labels.write(label.tobytes())
            sizes.append(list(label.shape))
            for part in (f"{name} {label.shape}\n".encode(), image.tobytes(), label.tobytes()):
                digest.update(part)
    content = {"sha256": digest.hexdigest(), "names": list(names), "sizes": sizes}
    if all(source.context_radius_path(name).is_file() for name in names):
        content["context_radius_sha256"] = _pack_context_radii(source, split, names, folder)
    return content


def _pack_context_radii(source: VocFolder, split: str, names: Sequence[str], folder: Path) -> str:
    radii = b"".join(read_label(source.context_radius_path(name)).tobytes() for name in names)
    context_radii_file(folder, split).write_bytes(radii)
    return hashlib.sha256(radii).hexdigest()
