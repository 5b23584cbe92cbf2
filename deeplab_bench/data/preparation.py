"""From what a profile's data section says to checked, packed splits."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from deeplab_bench.data import camvid, shapes
from deeplab_bench.data.archives import Archive, fetch, unpack
from deeplab_bench.data.packed import SPLITS, pack
from deeplab_bench.data.voc_layout import DataError, VocFolder, check
from deeplab_bench.params import CamVidData, Data, FolderData, ShapesData


def download(data: Data, downloads: Path) -> dict[str, Any]:
    """Fetch the archives that a data set comes in, none for one generated or given as a folder.

    Returns:
        The size in bytes and the digest of every archive, by name.

    Raises:
        DownloadError: an archive cannot be had.
    """
    archives = {}
    for archive in archives_of(data):
        path = fetch(archive, downloads)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        archives[archive.filename] = {"bytes": path.stat().st_size, "sha256": digest}
    return archives


def archives_of(data: Data) -> list[Archive]:
    match data:
        case CamVidData(root=None):
            return [replace(camvid.ARCHIVE, urls=(*camvid.ARCHIVE.urls, *data.mirrors))]
        case _:
            return []


def prepare(data: Data, downloads: Path, folder: Path) -> None:
    """Make ``folder`` anew: generate or convert a data set, check every pair, and pack it.

    Raises:
        DataError: the data are not what they should be; nothing is packed then.
        DownloadError: an archive cannot be unpacked.
    """
    given = given_folder(data, folder)
    shutil.rmtree(folder, ignore_errors=True)
    source = given or made_folder(data, downloads, folder)
    classes = class_names(data, source)
    splits = {split: source.names(split) for split in SPLITS}
    both = sorted(set(splits["train"]) & set(splits["val"]))
    if both:
        raise DataError(f"{source.root}: {len(both)} images are in train and val, as {both[0]}")
    for split, names in splits.items():
        check(source, names, len(classes), title=split)
    pack(source, splits, classes, folder)


def given_folder(data: Data, folder: Path) -> VocFolder | None:
    """The user's own data at ``data.root``, if the settings name it."""
    if isinstance(data, ShapesData) or data.root is None:
        return None
    root = Path(data.root)
    if root.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"data.root {root} lies in {folder}, which is made anew: move it elsewhere")
    if not root.is_dir():
        raise DataError(f"data.root {root} is not a folder: give one in VOC's layout")
    return VocFolder(root)


def made_folder(data: Data, downloads: Path, folder: Path) -> VocFolder:
    """The data set generated, or converted from its archive, in Pascal VOC's layout."""
    own = VocFolder(folder / "voc")
    match data:
        case ShapesData():
            images = {"train": data.train_images, "val": data.val_images}
            shapes.generate(own, seed=data.seed, image_size=data.image_size, images=images)
        case CamVidData():
            unpacked = folder / "unpacked"
            archive = downloads / camvid.ARCHIVE.filename
            unpack(archive, unpacked, members_under=camvid.MEMBERS_UNDER)
            camvid.convert(unpacked, own.root)
            shutil.rmtree(unpacked)
    return own


def class_names(data: Data, source: VocFolder) -> list[str]:
    match data:
        case ShapesData():
            return list(shapes.CLASSES)
        case CamVidData():
            return list(camvid.CLASSES)
        case FolderData():
            return source.classes()
