"""Prediction of photographs with a trained network, opened from its checkpoint alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from deeplab_bench.data.image_files import read_photograph
from deeplab_bench.data.pixels import DataError, Pixels
from deeplab_bench.evaluation.checkpoint import read_checkpoint
from deeplab_bench.evaluation.predict import compute_probabilities, pick_most_probable
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.prediction.tiles import Tile, cut_into_tiles
from deeplab_bench.runtime.device import prepare_model
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

MOST_PIXELS = 2**22  # of one pass of the network; with 21 classes it takes about 2 GB
MARGIN = 256  # pixels around a tile that the network sees, too

Photograph = str | Path | Image.Image | Pixels


@dataclass(frozen=True)
class Predictor:
    """A trained network and the names of its ``classes``.

    Its methods take a photograph: a path, a Pillow image, or RGB values (H, W, 3) of uint8. Files
    and Pillow images are turned upright, as their EXIF orientation says. A photograph of more
    than ``MOST_PIXELS`` is predicted in tiles.
    """

    classes: tuple[str, ...]
    experiment: Experiment
    model: Segmenter
    inference: Inference

    def predict(self, photograph: Photograph) -> Pixels:
        """Predict the class index of each pixel, (H, W).

        Raises:
            DataError: this is no image, or its pixels could be misread.
        """
        image = read_pixels(photograph)
        labels = np.empty(image.shape[:2], dtype=np.uint8)
        for tile, probabilities in self._predict_tiles(image):
            labels[tile.used] = pick_most_probable(probabilities[None])[0][tile.kept]
        return labels

    def probabilities(self, photograph: Photograph) -> NDArray[np.float32]:
        """Predict the probability of each class, (C, H, W).

        Raises:
            DataError: this is no image, or its pixels could be misread.
        """
        image = read_pixels(photograph)
        result = np.empty((len(self.classes), *image.shape[:2]), dtype=np.float32)
        for tile, probabilities in self._predict_tiles(image):
            result[:, *tile.used] = probabilities.cpu().numpy()[:, *tile.kept]
        return result

    def _predict_tiles(self, image: Pixels) -> Iterator[tuple[Tile, Tensor]]:
        """Yield each tile with the probabilities (C, h, w) of what the network sees of it."""
        for tile in cut_into_tiles(image.shape[0], image.shape[1], MOST_PIXELS, MARGIN):
            seen = np.ascontiguousarray(image[tile.seen])
            yield tile, compute_probabilities(self.model, seen[None], self.inference)[0]


def load(
    checkpoint: str | Path,
    *,
    output_stride: OutputStride | None = None,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
) -> Predictor:
    """Open a checkpoint for prediction; it needs no other file.

    ``output_stride``, ``scales`` and ``flip`` change the way of inference, see ``Inference``.

    Raises:
        CheckpointError: the file is missing, damaged, or of another version of the code.
        SettingsError: the network cannot have this output stride.
    """
    inference = Inference(output_stride=output_stride, scales=tuple(scales), flip=flip)
    read = read_checkpoint(Path(checkpoint))
    model = prepare_model(read.build_model(inference.output_stride))
    return Predictor(tuple(read.classes), read.experiment, model, inference)


def read_pixels(photograph: Photograph) -> Pixels:
    """Return RGB values (H, W, 3) of a photograph.

    Raises:
        DataError: this is no image, or its pixels could be misread.
    """
    if isinstance(photograph, np.ndarray):
        if photograph.dtype != np.uint8 or photograph.ndim != 3 or photograph.shape[2] != 3:
            raise DataError(
                f"the image is {photograph.dtype} {photograph.shape}: give uint8 (H, W, 3), RGB"
            )
        return photograph
    return read_photograph(photograph if isinstance(photograph, Image.Image) else Path(photograph))
