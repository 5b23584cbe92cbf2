"""Preparation of a data set: download, check of every image and label, and packing."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from deeplab_bench.data.archives import fetch
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.packing import pack
from deeplab_bench.data.pixels import DataError
from deeplab_bench.data.voc_layout import check


def download(data: DataSet, downloads: Path) -> dict[str, Any]:
    """Fetch the archives of a data set into the folder ``downloads``.

    Returns:
        The size in bytes and the sha256 of every archive, by file name.

    Raises:
        DownloadError: an archive cannot be downloaded.
        DataError: a folder given in the settings does not exist.
    """
    data.given_folders()
    archives = {}
    for archive in data.archives():
        path = fetch(archive, downloads)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        archives[archive.filename] = {"bytes": path.stat().st_size, "sha256": digest}
    return archives


def prepare(data: DataSet, downloads: Path, folder: Path) -> None:
    """Delete ``folder`` and make it again: generate or convert, check every pair, and pack.

    Raises:
        DataError: an image, a label or a list is missing or wrong; nothing is packed then.
        DownloadError: an archive cannot be unpacked.
    """
    for key, root in data.given_folders().items():
        if root.resolve().is_relative_to(folder.resolve()):
            raise DataError(
                f"data.{key} {root} lies in {folder}, which would be deleted: move it elsewhere"
            )
    shutil.rmtree(folder, ignore_errors=True)
    unpacked = folder / "unpacked"
    source = data.make_voc_folder(downloads, folder / "voc", unpacked)
    classes = data.class_names()
    splits = {"train": data.train_names(source), "val": data.val_names(source)}
    splits |= {split: source.names(split) for split in data.list_further_splits()}
    data.group_images(splits["val"])  # what is wrong with the groups is told before the training
    both = sorted(set(splits["train"]) & set(splits["val"]))
    if both and not data.trains_on_val():
        raise DataError(
            f"{source.root}: train and val share {len(both)} images, such as {both[0]}: "
            "remove them from one of the two lists"
        )
    pixels = {
        split: check(source, names, len(classes), title=split) for split, names in splits.items()
    }
    data.check_occurrence(pixels)
    pack(source, splits, classes, folder)
    shutil.rmtree(unpacked, ignore_errors=True)
