"""Pictures of the first validation images, side by side."""

from pathlib import Path

import numpy as np
from PIL import Image

from deeplab_bench.data.packed import load_split
from deeplab_bench.data.pixels import VOID, Pixels, write_label

SAMPLES = 6


def write_samples(data_folder: Path, images: Path, labels: Path) -> None:
    """Write the first validation images and their ground truth, each as one picture."""
    split = load_split(data_folder, "val")
    shown = range(min(SAMPLES, len(split)))
    images.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tile([split.image(i) for i in shown])).save(images, optimize=True)
    write_label(labels, tile([split.label(i) for i in shown]))


def tile(pixels: list[Pixels]) -> Pixels:
    """Put images (H, W, ...) side by side; fill the space below smaller ones with void."""
    height = max(len(x) for x in pixels)
    filled = [
        np.pad(x, [(0, height - len(x))] + [(0, 0)] * (x.ndim - 1), constant_values=VOID)
        for x in pixels
    ]
    return np.concatenate(filled, axis=1)
