"""Scores of one checkpoint under the scoring variants found in published code.

``measures.variants`` has the variants. Two of them look at other images than the protocol does.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from deeplab_bench.data.augmentation import resize
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import VOID, Pixels
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, find_background
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.evaluation.measures.variants import VARIANTS, Counts, protocol
from deeplab_bench.evaluation.predict import (
    compute_probabilities,
    pick_most_probable,
)
from deeplab_bench.runtime.device import make_deterministic, prepare_model
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

Predict = Callable[[Pixels], Pixels]


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
