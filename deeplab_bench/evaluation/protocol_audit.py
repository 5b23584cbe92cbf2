"""One checkpoint scored by rules that published code follows, beside the protocol of FCN and VOC.

The protocol (``measures.confusion``) counts the valid pixels of every image at its own size in one
confusion matrix. Each of ``RULES`` departs from it in one respect.
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
from deeplab_bench.data.voc_layout import VOID, Pixels
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.evaluate import (
    fraction,
    most_probable,
    probabilities,
    ready,
)
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.confusion import Confusion
from deeplab_bench.runtime.device import make_deterministic
from deeplab_bench.settings.schema import Experiment, Inference

Predict = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Counts:
    """What the rules are computed from, in pixels.

    ``per_image`` are confusion matrices (N, C, C), ``resized`` and ``cropped`` those (C, C) of the
    split seen and scored so, ``on_void`` the predictions (C,) where the ground truth is void.
    ``background`` is that class's index, None without one.
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
    return metrics.miou(counts.whole)


def resized_labels(counts: Counts) -> float:
    """Images and labels are resized to the training's crop, labels by their nearest pixel."""
    return metrics.miou(counts.resized)


def centre_crop(counts: Counts) -> float:
    """Only the middle of each image, of the training's crop size, is seen and scored."""
    return metrics.miou(counts.cropped)


def mean_of_images(counts: Counts) -> float:
    """The mean over images of each one's mIoU, of the classes in it or in its prediction."""
    return metrics.mean(np.array([metrics.miou(confusion) for confusion in counts.per_image]))


def mean_of_images_absent_zero(counts: Counts) -> float:
    """The same with every class, those in neither ground truth nor prediction as 0."""
    return float(np.nan_to_num([metrics.iou(confusion) for confusion in counts.per_image]).mean())


def absent_zero(counts: Counts) -> float:
    """Classes in neither ground truth nor prediction of the whole split count as 0."""
    return float(np.nan_to_num(metrics.iou(counts.whole)).mean())


def present_in_truth(counts: Counts) -> float:
    """Classes that the ground truth does not show are left out, even if they are predicted."""
    return metrics.mean(metrics.iou(counts.whole)[counts.whole.sum(axis=1) > 0])


def void_as_background(counts: Counts) -> float:
    """Void pixels are taken for background; NaN where there is no such class."""
    if counts.background is None:
        return math.nan
    confusion = counts.whole
    confusion[counts.background] += counts.on_void
    return metrics.miou(confusion)


def void_as_wrong(counts: Counts) -> float:
    """Whatever is predicted on void pixels enters the union of its class."""
    intersection, union = metrics.intersection_and_union(counts.whole)
    return metrics.mean(metrics.ratio(intersection, union + counts.on_void))


RULES = {
    rule.__name__: rule
    for rule in (
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
    """Score a checkpoint under the protocol and under every rule, ready for JSON.

    The score is null where a rule has no meaning. Two identical runs give the same.
    """
    make_deterministic(seed)
    model = ready(checkpoint.build_model(experiment, Inference()))
    crop_size = experiment.phases[-1].training.crop_size
    title = f"auditing {experiment.model} ({experiment.profile}, seed {seed})"
    images = tqdm(range(len(split)), desc=title, unit="image")

    def predict(image: Pixels) -> Pixels:
        return most_probable(probabilities(model, image[None], Inference()))[0]

    counts = counted(split, images, crop_size, predict)
    return {
        "crop_size": list(crop_size),
        "protocol": fraction(protocol(counts)),
        "rules": {name: fraction(rule(counts)) for name, rule in RULES.items()},
    }


def counted(
    split: Split, indices: Iterable[int], crop_size: tuple[int, int], predict: Predict
) -> Counts:
    """Count a split, image by image, in every view that a rule needs."""
    classes = len(split.classes)
    per_image, on_void = [], np.zeros(classes, dtype=np.int64)
    resized, cropped = np.zeros((2, classes, classes), dtype=np.int64)
    for index in indices:
        image, label = split.image(index), split.label(index)
        prediction = predict(image)
        per_image.append(metrics.confusion_matrix(label, prediction, classes))
        on_void += np.bincount(prediction[label == VOID], minlength=classes)
        for confusion, view in ((resized, resized_view), (cropped, centre_view)):
            seen, truth = view(image, label, crop_size)
            confusion += metrics.confusion_matrix(truth, predict(seen), classes)
    background = split.classes.index("background") if "background" in split.classes else None
    return Counts(np.stack(per_image), resized, cropped, on_void, background)


def resized_view(image: Pixels, label: Pixels, size: Sequence[int]) -> tuple[Pixels, Pixels]:
    """The pair at ``size``, (height, width), whatever its shape was."""
    (height, width), (rows, columns) = label.shape, size
    box = (0, 0, width, height)
    return (
        resize(image, (columns, rows), box, Image.Resampling.BILINEAR),
        resize(label, (columns, rows), box, Image.Resampling.NEAREST),
    )


def centre_view(image: Pixels, label: Pixels, size: Sequence[int]) -> tuple[Pixels, Pixels]:
    """The middle of the pair, of ``size`` or, along a shorter side, all of it."""
    rows, columns = (
        slice(start := max(0, (side - crop) // 2), start + crop)
        for side, crop in zip(label.shape, size, strict=True)
    )
    return image[rows, columns], label[rows, columns]
