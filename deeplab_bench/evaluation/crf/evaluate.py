"""Scoring one trained model after each iteration of the fully connected CRF."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.samples import SAMPLES, tile
from deeplab_bench.data.voc_layout import VOID, Pixels, write_label
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.crf import (
    CRFParameters,
    Pictures,
    Refined,
    Task,
    refine,
    require_pydensecrf,
)
from deeplab_bench.evaluation.crf.processes import available_cpus
from deeplab_bench.evaluation.crf.search import Tried, coarse_to_fine, mious_of, searched, spread
from deeplab_bench.evaluation.evaluate import class_probabilities, fraction
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.boundaries import BOUNDARY_SHARE, TRIMAP_WIDTHS
from deeplab_bench.evaluation.measures.confusion import Confusion
from deeplab_bench.runtime.device import make_deterministic, pick_device
from deeplab_bench.runtime.environment import environment
from deeplab_bench.settings.schema import CRF, Experiment, Inference

SEARCH_ITERATIONS = 10
PICTURED = (0, 1, 2, 10)


def evaluate_crf(
    experiment: Experiment,
    seed: int,
    settings: CRF,
    data_folder: Path,
    checkpoint: Checkpoint,
    samples: Mapping[str, Path],
    workers: int | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Refine a run's validation images by the CRF: scores by iteration and timing, ready for JSON.

    Two identical runs give the same scores. Pictures of the first images go to ``samples``, which
    names files for their labels, scores and beliefs.

    Raises:
        CRFError: pydensecrf is not installed.
        WorkerError: a worker process was ended.
    """
    require_pydensecrf()
    train, val = (load_split(data_folder, split) for split in ("train", "val"))
    make_deterministic(seed)
    model = checkpoint.build_model(experiment, Inference())
    workers = workers or available_cpus()
    title = f"CRF on {experiment.model} ({experiment.profile}, seed {seed})"
    started = time.monotonic()
    tried = search(model, train, settings, workers, title)
    found = time.monotonic()
    parameters = tried[0].parameters if tried else given_parameters(settings)
    tasks = validation_tasks(model, val, parameters, settings, title)
    confusions, boundary, seconds, pictures = summed(refine(tasks, workers))
    ended = time.monotonic()
    write_pictures(pictures, settings.iterations, samples)
    result = {
        "settings": settings.model_dump(mode="json"),
        "parameters": vars(parameters),
        "search": search_record(tried, settings, train),
        "classes": val.classes,
        "trimap_widths_px": list(TRIMAP_WIDTHS),
        "distance_share": BOUNDARY_SHARE,
        "pictured": pictured(settings.iterations),
        "iterations": figures(confusions, boundary, settings.iterations, val.classes),
    }
    timing = {
        "seconds_per_image": round(seconds / len(val), 4),
        "evaluation_seconds": round(ended - found, 2),
        "search_seconds": round(found - started, 2),
        "workers": workers,
        "environment": environment(pick_device()) | {"pydensecrf2": version("pydensecrf2")},
    }
    return result, timing


def given_parameters(settings: CRF) -> CRFParameters:
    return CRFParameters(**settings.model_dump(exclude={"iterations", "search"}))


def search(model: nn.Module, train: Split, settings: CRF, workers: int, title: str) -> list[Tried]:
    """All parameters tried on images of the training split, the best first; none without a search.

    The network sees each image once; its probabilities are kept in half precision.
    """
    if settings.search is None:
        return []
    given = given_parameters(settings)
    indices = spread(settings.search.images, len(train))
    outputs = class_probabilities(model, train, indices, f"{title}, training images", Inference())
    examples = [
        Task(
            probabilities.half().cpu().numpy(),
            np.array(train.image(index)),
            np.array(train.label(index)),
            given,
            iterations=(SEARCH_ITERATIONS,),
            widths=(math.inf,),
        )
        for index, probabilities in zip(indices, outputs, strict=True)
    ]
    return coarse_to_fine(
        given,
        (settings.search.w1, settings.search.sigma_alpha, settings.search.sigma_beta),
        lambda candidates: mious_of(candidates, examples, workers, f"{title}, search"),
    )


def validation_tasks(
    model: nn.Module, val: Split, parameters: CRFParameters, settings: CRF, title: str
) -> Iterator[Task]:
    background = val.classes.index("background") if "background" in val.classes else None
    outputs = class_probabilities(model, val, range(len(val)), title, Inference())
    for index, probabilities in enumerate(outputs):
        label = np.array(val.label(index))
        yield Task(
            probabilities.cpu().numpy(),
            np.array(val.image(index)),
            label,
            parameters,
            settings.iterations,
            (*TRIMAP_WIDTHS, math.inf),
            boundary=True,
            pictured=main_class(label, background) if index < SAMPLES else None,
        )


def main_class(label: Pixels, background: int | None) -> int:
    """The most frequent class, but for the background where there is another."""
    counts = np.bincount(label[label != VOID], minlength=1)
    if background is not None and counts.sum() > counts[background]:
        counts[background] = 0
    return int(counts.argmax())


def summed(
    results: Iterable[Refined],
) -> tuple[Confusion, NDArray[np.int64], float, list[Pictures]]:
    """The confusions, boundary regions and seconds of all images, and the pictures there are."""
    confusions, boundary = np.zeros((2, 1), dtype=np.int64)
    seconds, pictures = 0.0, []
    for refined in results:
        confusions = confusions + refined.confusions
        boundary = boundary + refined.boundary
        seconds += refined.seconds
        if refined.pictures:
            pictures.append(refined.pictures)
    return confusions, boundary, seconds, pictures


def figures(
    confusions: Confusion,
    boundary: NDArray[np.int64],
    iterations: Sequence[int],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The scores by iteration."""
    return {
        str(iteration): scores(counts, regions, classes)
        for iteration, counts, regions in zip(iterations, confusions, boundary, strict=True)
    }


def scores(
    confusions: Confusion, boundary: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """Of one iteration as fractions; null where there was nothing to measure."""
    *bands, whole = confusions
    boundary_iou = metrics.ratio(*boundary)
    return {
        "miou": fraction(metrics.miou(whole)),
        "pixel_accuracy": fraction(metrics.pixel_accuracy(whole)),
        "trimap_miou": [fraction(metrics.miou(band)) for band in bands],
        "iou": dict(zip(classes, map(fraction, metrics.iou(whole)), strict=True)),
        "boundary_iou": dict(zip(classes, map(fraction, boundary_iou), strict=True)),
        "boundary_miou": fraction(metrics.mean(boundary_iou)),
    }


def search_record(tried: Sequence[Tried], settings: CRF, train: Split) -> dict[str, Any] | None:
    """What was tried, the best first: w1, sigma_alpha, sigma_beta and the mIoU on the images."""
    if settings.search is None:
        return None
    return {
        "split": "train",
        "images": min(settings.search.images, len(train)),
        "iterations": SEARCH_ITERATIONS,
        "tried": [[*searched(one.parameters), one.miou] for one in tried],
    }


def write_pictures(
    pictures: Sequence[Pictures], iterations: Sequence[int], samples: Mapping[str, Path]
) -> None:
    """A strip of images per iteration of ``PICTURED``, one above the other."""
    rows = [iterations.index(iteration) for iteration in pictured(iterations)]
    for path in samples.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    labels = [tile([picture.labels[row] for picture in pictures]) for row in rows]
    write_label(samples["labels"], np.concatenate(labels))
    scores = [scaled(picture.scores[rows]) for picture in pictures]
    beliefs = [np.rint(255 * picture.beliefs[rows]).astype(np.uint8) for picture in pictures]
    for name, maps in (("scores", scores), ("beliefs", beliefs)):
        strips = [tile([image[row] for image in maps]) for row in range(len(rows))]
        Image.fromarray(np.concatenate(strips)).save(samples[name], optimize=True)


def pictured(iterations: Sequence[int]) -> list[int]:
    return [iteration for iteration in PICTURED if iteration in iterations]


def scaled(scores: NDArray[np.float32]) -> Pixels:
    """Scores as grey, from the lowest of an image's iterations to the highest."""
    low, high = scores.min(), scores.max()
    return np.rint(255 * (scores - low) / max(high - low, 1e-6)).astype(np.uint8)
