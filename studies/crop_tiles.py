"""Scores of whole images and of tiles: ``python -m studies.crop_tiles PROFILE MODELS [--every 9]``.

A tile has the size of a training crop, so that every weight of the network works where it was
trained. Tiles overlap by half, and their probabilities are averaged. Context models lose a little
by them; a model whose atrous rates reach beyond its training crops gains.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

import deeplab_bench
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, miou
from deeplab_bench.prediction.predictor import Predictor
from deeplab_bench.results.files import ProfileFiles, RunFiles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile")
    parser.add_argument("models", help="as in cascade,aspp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="score every n-th validation image")
    options = parser.parse_args()
    try:
        split = load_split(ProfileFiles(options.profile).data, "val")
        for model in options.models.split(","):
            checkpoint = RunFiles(options.profile, model, options.seed).checkpoint
            whole, tiles = score(checkpoint, split, options.every)
            print(f"{model}: whole images {100 * whole:.1f} %, tiles {100 * tiles:.1f} % mIoU")
    except UserError as error:
        sys.exit(f"error: {error}")


def score(checkpoint: Path, split: Split, every: int) -> tuple[float, float]:
    """Score a checkpoint on every n-th image: mIoU of whole images, and of tiles."""
    predictor = deeplab_bench.load(checkpoint)
    classes = len(split.classes)
    whole, tiles = (np.zeros((classes, classes), dtype=np.int64) for _ in range(2))
    for index in tqdm(range(0, len(split), every), desc=checkpoint.stem, unit="image"):
        image, label = split.image(index), split.label(index)
        whole += confusion_matrix(label, predictor.predict(image), classes)
        tiles += confusion_matrix(label, predict_tiles(predictor, image), classes)
    return miou(whole), miou(tiles)


def predict_tiles(predictor: Predictor, image: Pixels) -> Pixels:
    """Predict the class index of each pixel (H, W) from tiles of the size of a training crop."""
    height, width = predictor.experiment.phases[-1].training.crop_size
    total = np.zeros((len(predictor.classes), *image.shape[:2]), dtype=np.float32)
    for top in list_starts(image.shape[0], height):
        for left in list_starts(image.shape[1], width):
            place = (slice(top, top + height), slice(left, left + width))
            total[:, *place] += predictor.probabilities(np.ascontiguousarray(image[place]))
    return total.argmax(axis=0).astype(np.uint8)


def list_starts(length: int, tile: int) -> Iterator[int]:
    """Yield the starts of tiles that overlap by half at least and cover a side of the image."""
    steps = math.ceil(max(0, length - tile) / (tile / 2))
    for step in range(steps + 1):
        yield step * max(0, length - tile) // max(1, steps)


if __name__ == "__main__":
    main()
