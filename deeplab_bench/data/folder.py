"""A user's own data set: any folder in Pascal VOC's layout, with its class names in a file."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator

from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.pixels import VOID, DataError
from deeplab_bench.data.voc_layout import VocFolder


def check_pattern(pattern: str) -> str:
    """Refuse what is no regular expression; return the rest."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"it is no regular expression: {error}") from None
    return pattern


class FolderData(DataSet):
    """A folder in Pascal VOC's layout with the splits train and val and a ``classes.txt``.

    Images of one group belong together, for instance as frames of one clip. With ``^[^_]+`` these
    are images that have the text before the first underscore in common. Without a pattern every
    image is taken for independent.
    """

    folder_keys: ClassVar[Mapping[str, str]] = {"root": "a folder in Pascal VOC's layout"}

    dataset: Literal["folder"]
    """The name of the data set."""
    root: str
    """The folder."""
    group_pattern: Annotated[str, AfterValidator(check_pattern)] | None = None
    """A regular expression: images in whose names it finds the same text are one group."""

    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        return VocFolder(Path(self.root))

    def class_names(self) -> list[str]:
        return VocFolder(Path(self.root)).classes()

    def estimate_pixels(self) -> int:
        """Assume that all images are as large as the first."""
        source = VocFolder(Path(self.root))
        names = [name for split in ("train", "val") for name in source.names(split)]
        with Image.open(source.image_path(names[0])) as image:
            return len(names) * image.width * image.height

    def group_images(self, names: Sequence[str]) -> list[int]:
        if self.group_pattern is None:
            return super().group_images(names)
        groups: dict[str, int] = {}
        return [groups.setdefault(self._find_group(name), len(groups)) for name in names]

    def check_occurrence(self, pixels: Mapping[str, NDArray[np.int64]]) -> None:
        for split, counts in pixels.items():
            classes = enumerate(self.class_names())
            absent = [f"{name} ({value})" for value, name in classes if not counts[value]]
            if not absent:
                continue
            values = ", ".join(map(str, counts.nonzero()[0]))
            found = f"{self.root}: no label of {split} has {', '.join(absent)}; they have {values}"
            if split == "val":
                logging.getLogger(__name__).warning(
                    "%s: the IoU of an absent class is 0 if it is predicted, else left out", found
                )
                continue
            raise DataError(
                f"{found}: the first line of classes.txt is the name of value 0, and {VOID} is "
                "void; remove names that no label uses, or change the values of the labels"
            )

    def _find_group(self, name: str) -> str:
        found = re.search(self.group_pattern or "", name)
        if found is None:
            raise DataError(
                f"data.group_pattern {self.group_pattern} finds nothing in {name}, the name of an "
                "image: give a pattern that finds the group in every name"
            )
        return found[0]

    def describe(self, validation: str) -> str:
        return f"the images of `{self.root}` ({validation})"
