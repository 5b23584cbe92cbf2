"""A user's own data set: any folder in Pascal VOC's layout, with its class names in a file."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from PIL import Image

from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.voc_layout import VocFolder


class FolderData(DataSet):
    """A folder in Pascal VOC's layout with the splits train and val and a ``classes.txt``."""

    folder_keys: ClassVar[Mapping[str, str]] = {"root": "a folder in Pascal VOC's layout"}

    dataset: Literal["folder"]
    root: str

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

    def describe(self, validation: str) -> str:
        return f"the images of `{self.root}` ({validation})"
