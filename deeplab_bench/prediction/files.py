"""Files of predictions: label PNGs, overlays, and one picture of all networks."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deeplab_bench.data.pixels import Pixels, encode_label
from deeplab_bench.evaluation.crf import CRFParameters
from deeplab_bench.evaluation.crf.refinement import label_image
from deeplab_bench.prediction.pictures import (
    compute_shares,
    draw_prediction,
    encode_image,
    paint,
)
from deeplab_bench.prediction.predictor import Predictor, read_pixels
from deeplab_bench.writing import write_bytes

# Those of DeepLabv2's released code for VGG-16.
CRF = CRFParameters(w1=4, sigma_alpha=49, sigma_beta=5, w2=3, sigma_gamma=3)
CRF_ITERATIONS = 10


def write_predictions(
    folder: Path, photograph: Path, predictors: Mapping[str, Predictor], crf: bool
) -> list[str]:
    """Predict a photograph by each network, and write the labels and pictures of them.

    ``<name>.<network>.png`` are label PNGs in Pascal VOC's colours, and
    ``<name>.<network>.overlay.png`` these colours over the photograph, both of its size.
    ``<name>.png`` is a picture of all. Returns a line with the shares of the classes for each
    network.

    Raises:
        CRFError: pydensecrf is not installed.
        DataError: this is no image, or its pixels could be misread.
    """
    image = read_pixels(photograph)
    labels = {name: label(predictor, image, crf) for name, predictor in predictors.items()}
    classes = next(iter(predictors.values())).classes
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in labels.items():
        write_bytes(folder / f"{photograph.stem}.{name}.png", encode_label(found))
        overlay = encode_image(paint(image, found, classes))
        write_bytes(folder / f"{photograph.stem}.{name}.overlay.png", overlay)
    write_bytes(folder / f"{photograph.stem}.png", draw_prediction(image, labels, classes))
    return [f"{photograph}, {name}: {describe_shares(labels[name], classes)}" for name in labels]


def label(predictor: Predictor, image: Pixels, crf: bool) -> Pixels:
    if not crf:
        return predictor.predict(image)
    return label_image((predictor.probabilities(image), image), CRF, CRF_ITERATIONS)


def describe_shares(label: Pixels, classes: tuple[str, ...]) -> str:
    """List the classes that occur, largest first, with their share of the pixels."""
    shares = compute_shares(label, len(classes))
    order = [index for index in np.argsort(-shares, kind="stable") if shares[index]]
    return ", ".join(f"{classes[index]} {100 * shares[index]:.1f} %" for index in order)
