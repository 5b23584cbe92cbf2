"""A user's own data set: any folder in Pascal VOC's layout, with its class names in a file."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from PIL import Image
from pydantic import AfterValidator

from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.pixels import DataError
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

    ``group_pattern``: a regular expression. Validation images in whose names it finds the same text
    belong together, for instance as frames of one clip. With ``^[^_]+`` this is the text before the
    first underscore. Without a pattern every image is taken for independent.
    """

    folder_keys: ClassVar[Mapping[str, str]] = {"root": "a folder in Pascal VOC's layout"}

    dataset: Literal["folder"]
    root: str
    group_pattern: Annotated[str, AfterValidator(check_pattern)] | None = None

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
