"""The labels of Pascal VOC 2012 and of SBD: classes, reading, and the choice of some classes."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from deeplab_bench.data.image_files import read_label
from deeplab_bench.data.pixels import VOID, DataError, Pixels, write_label
from deeplab_bench.data.voc_layout import VocFolder

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


def collect(
    voc: VocFolder,
    sbd: Path | None,
    splits: Mapping[str, Collection[str]],
    destination: Path,
    classes: Collection[str] = CLASSES,
) -> VocFolder:
    """Make the new folder ``destination`` in VOC's layout, with these splits and classes.

    Images are a link to those of ``voc``, which include all of SBD's. With ``sbd``, images that VOC
    labels keep VOC's labels; for the others, SBD's labels are converted. Pixels of other classes
    than ``classes`` become void.

    Raises:
        DataError: a label is missing or damaged; the message names it.
    """
    by_sbd: set[str] = set()
    if sbd is not None:
        listed = {name for names in splits.values() for name in names}
        by_sbd = listed - {*voc.names("train"), *voc.names("val")}
    table = build_class_table(classes)
    made = VocFolder(destination)
    for folder in (made.root / "SegmentationClass", made.listing("val").parent):
        folder.mkdir(parents=True)
    (made.root / "JPEGImages").symlink_to((voc.root / "JPEGImages").resolve())
    for split, names in splits.items():
        made.listing(split).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        for name in tqdm(names, desc=f"labels of {split}", unit="image"):
            try:
                if sbd is not None and name in by_sbd:
                    label = read_sbd_label(sbd / "cls" / f"{name}.mat")
                else:
                    label = read_label(voc.label_path(name))
                write_label(made.label_path(name), table[label])
            except (OSError, SyntaxError) as error:
                advice = "extract the archives again, or check the disk, and run again"
                raise DataError(f"label of {name} in {split}: {error}; {advice}") from error
    return made


def build_class_table(classes: Collection[str]) -> Pixels:
    """Return the new value for each value of VOC's labels, uint8 (256).

    Values that VOC does not use stay, so that the check of all labels finds them.
    """
    table = np.arange(256, dtype=np.uint8)
    table[: len(CLASSES)] = VOID
    table[[CLASSES.index(name) for name in classes]] = np.arange(len(classes))
    return table


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
