"""Evaluation of one trained model at the original resolution of every image."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from deeplab_bench.data.packed import Split, pick_evenly
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.data.samples import SAMPLES
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.measures.confusion import confusion_matrix, miou
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.evaluation.measures.registry import MEASURES
from deeplab_bench.evaluation.predict import predict
from deeplab_bench.models import count_parameters
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import make_deterministic
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

TRAINING_IMAGES = 100


def evaluate(
    experiment: Experiment,
    seed: int,
    inference: Inference,
    split: Split,
    training_split: Split,
    checkpoint: Checkpoint,
) -> tuple[dict[str, Any], list[Pixels]]:
    """Score a checkpoint on a split, and keep the predictions (H, W) of its first images.

    The mIoU on some images of ``training_split`` tells how much the network has learned. The scores
    are ready for JSON; two identical runs give the same. Where there are several processes, each of
    them predicts a share of the images.
    """
    make_deterministic(seed)
    model = checkpoint.build_model(inference.output_stride)
    title = f"evaluating {experiment.model} ({experiment.profile}, seed {seed})"
    share = range(distributed.rank(), len(split), distributed.world_size())
    shown: dict[int, Pixels] = {}
    predictions = keep_first(predict(model, split, share, title, inference), SAMPLES, shown)
    records = measure_predictions(split, predictions)
    images = records.pop("images")  # by far the longest entry: it stands last in the file
    firsts = {
        index: image for part in distributed.all_gather(shown) for index, image in part.items()
    }
    settings = experiment.model_dump(mode="json", include={"arguments", "training", "second_phase"})
    result = {
        "architecture": experiment.architecture,
        "settings": settings | {"inference": inference.model_dump(mode="json")},
        "parameters": count_parameters(model),
        "classes": split.classes,
        **records,
        "training": checkpoint.history,
        "training_images": score_training_images(model, training_split, title, inference),
        "images": images,
    }
    return result, [firsts[index] for index in sorted(firsts)]


def score_training_images(
    model: Segmenter, split: Split, title: str, inference: Inference
) -> dict[str, Any]:
    """Compute the mIoU on ``TRAINING_IMAGES`` images of the split, evenly spaced."""
    chosen = pick_evenly(TRAINING_IMAGES, len(split))
    share = chosen[distributed.rank() :: distributed.world_size()]
    counts = np.zeros((len(split.classes),) * 2, dtype=np.int64)
    for index, prediction in predict(model, split, share, f"{title}, training images", inference):
        counts += confusion_matrix(split.label(index), prediction, len(split.classes))
    counts = distributed.all_reduce_sum(counts)
    return {"images": len(chosen), "miou": round_fraction(miou(counts))}


def keep_first(
    predictions: Iterable[tuple[int, Pixels]], count: int, kept: dict[int, Pixels]
) -> Iterator[tuple[int, Pixels]]:
    """Pass all predictions on, and copy those of the first ``count`` images to ``kept``."""
    for index, prediction in predictions:
        if index < count:
            kept[index] = prediction
        yield index, prediction


def measure_predictions(split: Split, predictions: Iterable[tuple[int, Pixels]]) -> dict[str, Any]:
    """Compute all measures of a split from pairs (index of an image, its prediction).

    If there are several processes, each of them passes the predictions of its share of the images.
    """
    measures = [measure(split) for measure in MEASURES]
    for index, prediction in predictions:
        label = split.label(index)
        for measure in measures:
            measure.update(index, label, prediction)
    records: dict[str, Any] = {}
    for measure in measures:
        measure.merge(distributed.all_reduce_sum)
        records |= measure.record()
    return records
