"""Scores of one checkpoint under the scoring variants found in published code.

The protocol of FCN and Pascal VOC (``measures.confusion``) counts the valid pixels of all images,
at their own sizes, in one confusion matrix. Each of ``VARIANTS`` differs from it in one respect.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.augmentation import resize
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.measures.confusion import (
    Confusion,
    confusion_matrix,
    find_background,
    intersection_and_union,
    iou,
    mean,
    miou,
    ratio,
)
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.evaluation.predict import (
    compute_probabilities,
    pick_most_probable,
)
from deeplab_bench.runtime.device import make_deterministic, prepare_model
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

Predict = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Counts:
    """The pixel counts from which all variants are computed.

    ``per_image``: a confusion matrix of each image (N, C, C). ``resized`` and ``cropped``: that of
    the split in these views (C, C). ``on_void``: the predictions of each class where the ground
    truth is void (C,). ``background``: the index of this class, None if there is no such class.
    """

    per_image: Confusion
    resized: Confusion
    cropped: Confusion
    on_void: NDArray[np.int64]
    background: int | None

    @property
    def whole(self) -> Confusion:
        return self.per_image.sum(axis=0)


def protocol(counts: Counts) -> float:
    """Compute the mIoU of the protocol, without any change."""
    return miou(counts.whole)


def resized_labels(counts: Counts) -> float:
    """Resize images and labels to the training's crop size, labels with nearest neighbour."""
    return miou(counts.resized)


def centre_crop(counts: Counts) -> float:
    """Predict and score only the centre of each image, of the training's crop size."""
    return miou(counts.cropped)


def mean_of_images(counts: Counts) -> float:
    """Average the mIoU of each image, over the classes in its ground truth or prediction."""
    return mean(np.array([miou(confusion) for confusion in counts.per_image]))


def mean_of_images_absent_zero(counts: Counts) -> float:
    """Average the mIoU of each image, over all classes; a class in neither counts as 0."""
    return float(np.nan_to_num([iou(confusion) for confusion in counts.per_image]).mean())


def absent_zero(counts: Counts) -> float:
    """Count a class in neither ground truth nor prediction of the split as IoU 0."""
    return float(np.nan_to_num(iou(counts.whole)).mean())


def present_in_truth(counts: Counts) -> float:
    """Leave out classes that are not in the ground truth, even if they are predicted."""
    return mean(iou(counts.whole)[counts.whole.sum(axis=1) > 0])


def void_as_background(counts: Counts) -> float:
    """Label void pixels as background; NaN if there is no such class."""
    if counts.background is None:
        return math.nan
    confusion = counts.whole
    confusion[counts.background] += counts.on_void
    return miou(confusion)


def void_as_wrong(counts: Counts) -> float:
    """Add the predictions on void pixels to the union of their class."""
    intersection, union = intersection_and_union(counts.whole)
    return mean(ratio(intersection, union + counts.on_void))


VARIANTS = {
    variant.__name__: variant
    for variant in (
        resized_labels,
        centre_crop,
        mean_of_images,
        mean_of_images_absent_zero,
        absent_zero,
        present_in_truth,
        void_as_background,
        void_as_wrong,
    )
}


def audit(
    experiment: Experiment, seed: int, split: Split, checkpoint: Checkpoint
) -> dict[str, Any]:
    """Score a checkpoint under the protocol and under every variant, ready for JSON.

    The score is null if a variant is not defined. Two identical runs give the same scores.
    """
    make_deterministic(seed)
    model = prepare_model(checkpoint.build_model())
    crop_size = experiment.phases[-1].training.crop_size
    title = f"auditing {experiment.model} ({experiment.profile}, seed {seed})"
    images = tqdm(range(len(split)), desc=title, unit="image")

    def predict(image: Pixels) -> Pixels:
        return pick_most_probable(compute_probabilities(model, image[None], Inference()))[0]

    counts = count_split(split, images, crop_size, predict)
    return {
        "crop_size": list(crop_size),
        "protocol": round_fraction(protocol(counts)),
        "variants": {name: round_fraction(variant(counts)) for name, variant in VARIANTS.items()},
    }


def count_split(
    split: Split, indices: Iterable[int], crop_size: tuple[int, int], predict: Predict
) -> Counts:
    """Predict and count the images of a split in every view that a variant needs."""
    classes = len(split.classes)
    per_image, on_void = [], np.zeros(classes, dtype=np.int64)
    resized, cropped = np.zeros((2, classes, classes), dtype=np.int64)
    for index in indices:
        image, label = split.image(index), split.label(index)
        prediction = predict(image)
        per_image.append(confusion_matrix(label, prediction, classes))
        on_void += np.bincount(prediction[label == VOID], minlength=classes)
        for confusion, view in ((resized, resize_view), (cropped, crop_view)):
            seen, truth = view(image, label, crop_size)
            confusion += confusion_matrix(truth, predict(seen), classes)
    background = find_background(split.classes)
    return Counts(np.stack(per_image), resized, cropped, on_void, background)


def resize_view(image: Pixels, label: Pixels, size: Sequence[int]) -> tuple[Pixels, Pixels]:
    """Resize the pair to ``size``, (height, width), without keeping its aspect ratio."""
    (height, width), (rows, columns) = label.shape, size
    box = (0, 0, width, height)
    return (
        resize(image, (columns, rows), box, Image.Resampling.BILINEAR),
        resize(label, (columns, rows), box, Image.Resampling.NEAREST),
    )


def crop_view(image: Pixels, label: Pixels, size: Sequence[int]) -> tuple[Pixels, Pixels]:
    """Crop the centre of the pair, of ``size`` (height, width); a shorter side stays whole."""
    rows, columns = (
        slice(start := max(0, (side - crop) // 2), start + crop)
        for side, crop in zip(label.shape, size, strict=True)
    )
    return image[rows, columns], label[rows, columns]
