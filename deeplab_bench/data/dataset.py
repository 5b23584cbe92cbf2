"""The base class of data sets: the settings of one, and how to get its images and labels.

A data set is one file: ``camvid.py`` defines the one that ``params.yaml`` calls ``camvid``.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from deeplab_bench.data.archives import Archive
from deeplab_bench.data.pixels import DataError, Pixels
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.plugins import find_only_class
from deeplab_bench.settings.base import Settings

Address = Annotated[str, Field(pattern=r"^https?://")]


class DataSet(Settings, ABC):
    """A profile's section ``data``. The methods tell ``prepare`` and the report about the data set.

    ``generated``: the images are our own, so they may be published, and ``draw_object`` makes more.
    ``folder_keys``: the settings that hold a folder of the user, each with what must be in it.
    ``group_words``: what captions call the groups of images, and the images in them.
    """

    generated: ClassVar[bool] = False
    folder_keys: ClassVar[Mapping[str, str]] = {}
    group_words: ClassVar[tuple[str, str]] = ("groups", "images")

    dataset: str

    def given_folders(self) -> dict[str, Path]:
        """Return the user's own folders by their keys in the settings.

        Raises:
            DataError: a folder does not exist.
        """
        folders = {}
        for key, content in self.folder_keys.items():
            if (value := getattr(self, key)) is not None:
                folders[key] = Path(value)
                if not folders[key].is_dir():
                    raise DataError(f"data.{key} {value} is not a folder: give {content}")
        return folders

    def digest_files(self) -> dict[str, str]:
        """Return the sha256 of each file of settings that the settings name, by its path.

        Raises:
            DataError: a file is missing or wrong.
        """
        return {}

    def archives(self) -> list[Archive]:
        """Return the archives to download; none if the images are generated or given."""
        return []

    @abstractmethod
    def make_voc_folder(self, downloads: Path, made: Path, unpacked: Path) -> VocFolder:
        """Return the data set in Pascal VOC's layout: given, generated or converted.

        Args:
            downloads: the folder with the archives.
            made: a new folder for generated or converted files, which are kept.
            unpacked: a new folder for temporary files, deleted after packing.

        Raises:
            DataError: files are missing or differ from the published ones.
            DownloadError: an archive cannot be unpacked.
        """

    @abstractmethod
    def class_names(self) -> list[str]:
        """Return the class names in the order of their indices.

        Raises:
            DataError: a given folder does not list them.
        """

    def train_names(self, source: VocFolder) -> list[str]:
        """Return the names of the training images."""
        return source.names("train")

    def val_names(self, source: VocFolder) -> list[str]:
        """Return the names of the images that are scored."""
        return source.names("val")

    @property
    def scored_split(self) -> str:
        """The name of the scored images in captions."""
        return "validation"

    def group_images(self, names: Sequence[str]) -> list[int]:
        """Return the group of each scored image, counted from 0. By default each has its own.

        Images of one group are not independent, such as frames of one clip. Intervals resample
        whole groups.

        Raises:
            DataError: the settings do not say to which group an image belongs.
        """
        return list(range(len(names)))

    def list_further_splits(self) -> tuple[str, ...]:
        """Return the splits beside ``train`` that a second phase of training may use."""
        return ()

    def trains_on_val(self) -> bool:
        """Tell whether the training images contain those of val on purpose."""
        return False

    def draw_object(self, index: int, size: int) -> tuple[Pixels, int]:
        """Draw an image of one object, for pretraining; only ``generated`` data sets can.

        Returns:
            The image ``index`` of an endless stream that shares nothing with the splits, uint8
            (size, size, 3), and the index of its class.
        """
        raise NotImplementedError

    @abstractmethod
    def estimate_pixels(self) -> int:
        """Return about how many pixels all images have together, for planning."""

    @abstractmethod
    def describe(self, validation: str) -> str:
        """Return a phrase for the report; ``validation`` is the number of images, in words."""

    def check_occurrence(self, pixels: Mapping[str, NDArray[np.int64]]) -> None:
        """Check what only the labels of a whole split show, where their values may mean anything.

        ``pixels`` are the number of pixels of every value in a split's labels (256).

        Raises:
            DataError: a class never occurs in a split that is trained on.
        """

    def is_as_published(self) -> bool:
        """Tell whether classes and scored images are those of published values on these data."""
        return True

    def warn(self) -> str:
        """Return what the caption must say of published figures on these data, or nothing."""
        return ""


class DataSettings(Settings):
    """The settings of the stages ``download`` and ``prepare``, for one data set.

    ``files_sha256`` is of the files that ``data`` names, so that an edit of one is seen.
    """

    data: dict[str, JsonValue]
    files_sha256: dict[str, str]


def build_data_set(settings: Mapping[str, JsonValue]) -> DataSet:
    """Build the data set from its own file alone: an edit of another one is not seen."""
    name = f"{__package__}.{settings['dataset']}"
    data_set = find_only_class(name, DataSet)  # type: ignore[type-abstract]
    return data_set.model_validate_json(json.dumps(settings))
