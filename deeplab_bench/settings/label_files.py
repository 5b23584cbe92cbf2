"""The settings of label files that another program predicted."""

from deeplab_bench.settings.base import Settings


class LabelFiles(Settings):
    """A block of ``models`` that has the folder with the label PNGs, and no network of ours."""

    predictions: str
    """The folder, from the repository's root or as an absolute path."""
