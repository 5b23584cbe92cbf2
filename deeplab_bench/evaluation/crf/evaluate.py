"""Evaluation of one trained model after each iteration of the fully connected CRF."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deeplab_bench.data.packed import Split, load_split, pick_evenly
from deeplab_bench.data.pixels import VOID, Pixels, write_label
from deeplab_bench.data.samples import SAMPLES, tile
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.crf import (
    CRFParameters,
    Pictures,
    Refined,
    Task,
    refine_images,
    require_pydensecrf,
)
from deeplab_bench.evaluation.crf.processes import count_available_cpus
from deeplab_bench.evaluation.crf.search import (
    Candidate,
    compute_mious,
    get_searched_values,
    search_coarse_to_fine,
)
from deeplab_bench.evaluation.measures.boundaries import (
    BOUNDARY_SHARE,
    TRIMAP_WIDTHS,
    record_boundary_iou,
)
from deeplab_bench.evaluation.measures.confusion import (
    Confusion,
    find_background,
    iou,
    miou,
    pixel_accuracy,
)
from deeplab_bench.evaluation.measures.measure import round_fraction
from deeplab_bench.evaluation.predict import predict_probabilities
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.runtime.device import make_deterministic, pick_device
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.settings.crf import CRF
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

SEARCH_ITERATIONS = 10
PICTURED_ITERATIONS = (0, 1, 2, 10)


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

    Two identical runs give the same scores. Pictures of the first images are written to the files
    in ``samples``: labels, score maps and belief maps.

    Raises:
        CRFError: pydensecrf is not installed.
        WorkerError: a worker process was killed.
    """
    require_pydensecrf()
    train, val = (load_split(data_folder, split) for split in ("train", "val"))
    make_deterministic(seed)
    model = checkpoint.build_model()
    workers = workers or experiment.process.threads or count_available_cpus()
    title = f"CRF on {experiment.model} ({experiment.profile}, seed {seed})"
    started = time.monotonic()
    tried = search_parameters(model, train, settings, workers, title)
    found = time.monotonic()
    parameters = choose_parameters(tried, settings)
    tasks = build_validation_tasks(model, val, parameters, settings, title)
    confusions, regions, seconds, pictures = sum_results(refine_images(tasks, workers))
    ended = time.monotonic()
    write_pictures(pictures, settings.iterations, samples)
    result = {
        "settings": settings.model_dump(mode="json"),
        "parameters": vars(parameters),
        "search": record_search(tried, settings, train),
        "classes": val.classes,
        "trimap_widths_px": list(TRIMAP_WIDTHS),
        "distance_share": BOUNDARY_SHARE,
        "pictured": select_pictured(settings.iterations),
        "iterations": record_iterations(confusions, regions, settings.iterations, val.classes),
    }
    timing = {
        "seconds_per_image": round(seconds / len(val), 4),
        "evaluation_seconds": round(ended - found, 2),
        "search_seconds": round(found - started, 2),
        "workers": workers,
        "environment": describe_environment(pick_device())
        | {"pydensecrf2": version("pydensecrf2")},
    }
    return result, timing


def choose_parameters(tried: Sequence[Candidate], settings: CRF) -> CRFParameters:
    """Return the best of the parameters that were tried, or without a search those given."""
    return tried[0].parameters if tried else build_parameters(settings)


def build_parameters(settings: CRF) -> CRFParameters:
    """Return the parameters in the settings. A search starts there."""
    return CRFParameters(**settings.model_dump(exclude={"iterations", "search"}))


def search_parameters(
    model: Segmenter, train: Split, settings: CRF, workers: int, title: str
) -> list[Candidate]:
    """Search the parameters on images of the training split; return all candidates, best first.

    Empty if the settings ask for no search. The network sees each image once; its probabilities are
    kept in half precision.
    """
    if settings.search is None:
        return []
    start = build_parameters(settings)
    indices = pick_evenly(settings.search.images, len(train))
    outputs = predict_probabilities(model, train, indices, f"{title}, training images", Inference())
    examples = [
        Task(
            probabilities.half().cpu().numpy(),
            np.array(train.image(index)),
            np.array(train.label(index)),
            start,
            iterations=(SEARCH_ITERATIONS,),
            widths=(math.inf,),
        )
        for index, probabilities in zip(indices, outputs, strict=True)
    ]
    return search_coarse_to_fine(
        start,
        (settings.search.w1, settings.search.sigma_alpha, settings.search.sigma_beta),
        lambda candidates: compute_mious(candidates, examples, workers, f"{title}, search"),
    )


def build_validation_tasks(
    model: Segmenter, val: Split, parameters: CRFParameters, settings: CRF, title: str
) -> Iterator[Task]:
    """Predict the validation images, one by one, and yield a task for each."""
    background = find_background(val.classes)
    outputs = predict_probabilities(model, val, range(len(val)), title, Inference())
    for index, probabilities in enumerate(outputs):
        label = np.array(val.label(index))
        yield Task(
            probabilities.cpu().numpy(),
            np.array(val.image(index)),
            label,
            parameters,
            settings.iterations,
            (*TRIMAP_WIDTHS, math.inf),
            count_regions=True,
            pictured_class=find_main_class(label, background) if index < SAMPLES else None,
        )


def find_main_class(label: Pixels, background: int | None) -> int:
    """Find the most frequent class; background only if the label shows no other class."""
    counts = np.bincount(label[label != VOID], minlength=1)
    if background is not None and counts.sum() > counts[background]:
        counts[background] = 0
    return int(counts.argmax())


def sum_results(
    results: Iterable[Refined],
) -> tuple[Confusion, NDArray[np.int64], float, list[Pictures]]:
    """Sum the confusions, boundary regions and seconds of all images, and collect the pictures."""
    confusions, regions = np.zeros((2, 1), dtype=np.int64)
    seconds, pictures = 0.0, []
    for refined in results:
        confusions = confusions + refined.confusions
        regions = regions + refined.regions
        seconds += refined.seconds
        if refined.pictures:
            pictures.append(refined.pictures)
    return confusions, regions, seconds, pictures


def record_iterations(
    confusions: Confusion,
    regions: NDArray[np.int64],
    iterations: Sequence[int],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Compute the figures after each of N iterations.

    The input is confusion matrices (N, len(widths), C, C) and counts of boundary regions (N, 2, C).
    """
    return {
        str(iteration): record_iteration(matrices, counts, classes)
        for iteration, matrices, counts in zip(iterations, confusions, regions, strict=True)
    }


def record_iteration(
    confusions: Confusion, regions: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """Compute the figures after one iteration; null if there was nothing to count.

    ``confusions`` (len(widths), C, C) ends with the matrix of the whole image.
    """
    *bands, whole = confusions
    return {
        "miou": round_fraction(miou(whole)),
        "pixel_accuracy": round_fraction(pixel_accuracy(whole)),
        "trimap_miou": [round_fraction(miou(band)) for band in bands],
        "iou": dict(zip(classes, map(round_fraction, iou(whole)), strict=True)),
        **record_boundary_iou(regions, classes),
    }


def record_search(tried: Sequence[Candidate], settings: CRF, train: Split) -> dict[str, Any] | None:
    """Return the candidates, best first, as [w1, sigma_alpha, sigma_beta, mIoU].

    None if the settings ask for no search.
    """
    if settings.search is None:
        return None
    return {
        "split": "train",
        "images": min(settings.search.images, len(train)),
        "iterations": SEARCH_ITERATIONS,
        "tried": [[*get_searched_values(one.parameters), one.miou] for one in tried],
    }


def write_pictures(
    pictures: Sequence[Pictures], iterations: Sequence[int], samples: Mapping[str, Path]
) -> None:
    """Write one row of images for each iteration of ``PICTURED_ITERATIONS``, top to bottom."""
    rows = [iterations.index(iteration) for iteration in select_pictured(iterations)]
    for path in samples.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    labels = [tile([picture.labels[row] for picture in pictures]) for row in rows]
    write_label(samples["labels"], np.concatenate(labels))
    scores = [scale_to_grey(picture.scores[rows]) for picture in pictures]
    beliefs = [np.rint(255 * picture.beliefs[rows]).astype(np.uint8) for picture in pictures]
    for name, maps in (("scores", scores), ("beliefs", beliefs)):
        strips = [tile([image[row] for image in maps]) for row in range(len(rows))]
        Image.fromarray(np.concatenate(strips)).save(samples[name], optimize=True)


def select_pictured(iterations: Sequence[int]) -> list[int]:
    """Select those of ``PICTURED_ITERATIONS`` that were computed."""
    return [iteration for iteration in PICTURED_ITERATIONS if iteration in iterations]


def scale_to_grey(scores: NDArray[np.float32]) -> Pixels:
    """Scale the scores (N, H, W) of one image to greys, from their lowest value to the highest."""
    low, high = scores.min(), scores.max()
    return np.rint(255 * (scores - low) / max(high - low, 1e-6)).astype(np.uint8)
