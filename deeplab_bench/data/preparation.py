"""From what a profile's data section says to checked, packed splits."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deeplab_bench.data import camvid, shapes, voc2012
from deeplab_bench.data.archives import Archive, fetch, unpack
from deeplab_bench.data.packed import pack
from deeplab_bench.data.voc_layout import DataError, VocFolder, check
from deeplab_bench.settings.params import CamVidData, Data, FolderData, ShapesData, VocData

ROOTS = {"root": "one in VOC's layout", "sbd_root": "SBD's benchmark_RELEASE"}


def download(
    data: Data, downloads: Path, *, voc: voc2012.Release = voc2012.PUBLISHED
) -> dict[str, Any]:
    """Fetch the archives that a data set comes in, none for one generated or given as a folder.

    Returns:
        The size in bytes and the digest of every archive, by name.

    Raises:
        DownloadError: an archive cannot be had.
        DataError: a folder that the settings give in its place is none.
    """
    given_folders(data)
    archives = {}
    for archive in archives_of(data, voc):
        path = fetch(archive, downloads)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        archives[archive.filename] = {"bytes": path.stat().st_size, "sha256": digest}
    return archives


def archives_of(data: Data, voc: voc2012.Release) -> list[Archive]:
    """The archives to download, each at its official addresses and the settings' mirrors."""
    mirrored: list[tuple[Archive, Sequence[str]]] = []
    match data:
        case CamVidData(root=None):
            mirrored = [(camvid.ARCHIVE, data.mirrors)]
        case VocData():
            if data.root is None:
                mirrored = [(voc.voc, data.mirrors)]
            if sbd_is_needed(data) and data.sbd_root is None:
                mirrored.append((voc.sbd, data.sbd_mirrors))
    return [replace(archive, urls=(*archive.urls, *mirrors)) for archive, mirrors in mirrored]


def sbd_is_needed(data: VocData) -> bool:
    """Whether trainaug is to be made, not taken from a ``root`` that lists it."""
    if data.root is None or data.sbd_root is not None:
        return data.train_split == "trainaug"
    listing = voc2012.voc_folder(Path(data.root)).listing("trainaug")
    return data.train_split == "trainaug" and not listing.is_file()


def prepare(
    data: Data, downloads: Path, folder: Path, *, voc: voc2012.Release = voc2012.PUBLISHED
) -> None:
    """Make ``folder`` anew: generate or convert a data set, check every pair, and pack it.

    Raises:
        DataError: the data are not what they should be; nothing is packed then.
        DownloadError: an archive cannot be unpacked.
    """
    for key, root in given_folders(data).items():
        if root.resolve().is_relative_to(folder.resolve()):
            where = f"data.{key} {root} lies in {folder}"
            raise DataError(f"{where}, which is made anew: move it elsewhere")
    shutil.rmtree(folder, ignore_errors=True)
    source = source_of(data, downloads, folder, voc)
    classes = class_names(data, source)
    train_split = data.train_split if isinstance(data, VocData) else "train"
    splits = {"train": source.names(train_split), "val": source.names("val")}
    both = sorted(set(splits["train"]) & set(splits["val"]))
    if both:
        raise DataError(f"{source.root}: {len(both)} images are in train and val, as {both[0]}")
    for split, names in splits.items():
        check(source, names, len(classes), title=split)
    pack(source, splits, classes, folder)
    shutil.rmtree(folder / "unpacked", ignore_errors=True)


def given_folders(data: Data) -> dict[str, Path]:
    """The user's own folders, by their keys in the settings.

    Raises:
        DataError: one is not there.
    """
    given = {key: Path(getattr(data, key)) for key in ROOTS if getattr(data, key, None) is not None}
    for key, root in given.items():
        if not root.is_dir():
            raise DataError(f"data.{key} {root} is not a folder: give {ROOTS[key]}")
    return given


def source_of(data: Data, downloads: Path, folder: Path, voc: voc2012.Release) -> VocFolder:
    """The data set in Pascal VOC's layout: as given, generated, or made from its archives.

    What was only unpacked lies in ``folder/unpacked``.
    """
    made, unpacked = VocFolder(folder / "voc"), folder / "unpacked"
    match data:
        case CamVidData(root=str(root)) | FolderData(root=root):
            return VocFolder(Path(root))
        case ShapesData():
            images = {"train": data.train_images, "val": data.val_images}
            shapes.generate(made, seed=data.seed, image_size=data.image_size, images=images)
        case CamVidData():
            archive = downloads / camvid.ARCHIVE.filename
            unpack(archive, unpacked, members_under=camvid.MEMBERS_UNDER)
            camvid.convert(unpacked, made.root)
        case VocData():
            return _voc2012(data, downloads, unpacked, voc)
    return made


def _voc2012(data: VocData, downloads: Path, unpacked: Path, release: voc2012.Release) -> VocFolder:
    if data.root is None:
        archive, root = downloads / release.voc.filename, unpacked / "VOC2012"
        unpack(archive, root, members_under=voc2012.VOC_MEMBERS_UNDER)
    voc = voc2012.voc_folder(unpacked if data.root is None else Path(data.root))
    if not sbd_is_needed(data):
        for split in (data.train_split, "val"):
            voc2012.check_count(voc.listing(split), voc.names(split), release.counts[split])
        return voc
    if data.sbd_root is None:
        archive, root = downloads / release.sbd.filename, unpacked / "dataset"
        unpack(archive, root, members_under=voc2012.SBD_MEMBERS_UNDER)
    sbd = voc2012.sbd_folder(unpacked if data.sbd_root is None else Path(data.sbd_root))
    return voc2012.add_sbd(voc, sbd, unpacked / "trainaug", release.counts)


def class_names(data: Data, source: VocFolder) -> list[str]:
    match data:
        case ShapesData():
            return list(shapes.CLASSES)
        case CamVidData():
            return list(camvid.CLASSES)
        case VocData():
            return list(voc2012.CLASSES)
        case FolderData():
            return source.classes()
