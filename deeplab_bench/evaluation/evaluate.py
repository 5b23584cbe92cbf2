"""Scoring one trained model at the original resolution of every image."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from deeplab_bench.data.batches import normalise
from deeplab_bench.data.context_radius import RADIUS_BINS, correct_and_total
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.samples import SAMPLES, tile
from deeplab_bench.data.voc_layout import Pixels, write_label
from deeplab_bench.errors import UserError
from deeplab_bench.evaluation.measures import confusion as metrics
from deeplab_bench.evaluation.measures.boundaries import (
    BOUNDARY_SHARE,
    TRIMAP_WIDTHS,
    boundary_intersection_and_union,
    trimap_confusions,
)
from deeplab_bench.evaluation.measures.object_size import BINS, area_edges, object_areas, size_bins
from deeplab_bench.models import build_model, count_parameters
from deeplab_bench.models.layers import resize_like
from deeplab_bench.models.multi_scale import rescale
from deeplab_bench.results.provenance import run_code_sha256
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import make_deterministic, pick_device
from deeplab_bench.settings.schema import Experiment, Inference
from deeplab_bench.training.train import training_provenance, training_timing

# Of images that go through a network together, those of a CPU's caches.
BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**21}


class EvaluationError(UserError):
    """A checkpoint cannot be scored; the message says why and what to do."""


@dataclass(frozen=True)
class Scores:
    """Confusion matrices of a split: per image (N, C, C), per object size (len(BINS), C, C).

    ``per_width``: of the trimaps (len(TRIMAP_WIDTHS), C, C). ``boundary``: the intersection and
    union of boundary regions (2, C), in pixels. ``per_radius``: of the pixels of each context
    radius those found and all (2, bins), None where the data set has no such radii.
    """

    per_image: metrics.Confusion
    per_size: metrics.Confusion
    area_edges: list[float]
    per_width: metrics.Confusion
    boundary: NDArray[np.int64]
    per_radius: NDArray[np.int64] | None

    def over_processes(self) -> "Scores":
        """Of all images, where each process has scored a share of them."""
        return Scores(
            distributed.total(self.per_image),
            distributed.total(self.per_size),
            self.area_edges,
            distributed.total(self.per_width),
            distributed.total(self.boundary),
            None if self.per_radius is None else distributed.total(self.per_radius),
        )


def evaluate(
    experiment: Experiment, seed: int, data_folder: Path, checkpoint: Path, samples: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The result of a run and its timing, ready for JSON; sample predictions go to ``samples``.

    Nothing in the result varies between two identical runs.

    Raises:
        EvaluationError: the checkpoint was made from other settings, code or data.
        TrainingError: its timing is missing.
    """
    state = load_checkpoint(experiment, seed, data_folder, checkpoint)
    timing = training_timing(checkpoint)
    started = time.monotonic()
    result, shown = score_checkpoint(experiment, seed, data_folder, state, Inference())
    seconds = time.monotonic() - started
    if distributed.rank() == 0:
        samples.parent.mkdir(parents=True, exist_ok=True)
        write_label(samples, tile(shown))
    return result, timing | {"evaluation_seconds": round(seconds, 2)}


def evaluate_inference(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    checkpoint: Path,
    name: str,
    inference: Inference,
) -> dict[str, Any]:
    """The result of a run under another way of inference, ready for JSON.

    Raises:
        EvaluationError: the checkpoint was made from other settings, code or data.
    """
    state = load_checkpoint(experiment, seed, data_folder, checkpoint)
    result, _ = score_checkpoint(experiment, seed, data_folder, state, inference)
    return {"inference": name} | result


def score_checkpoint(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    state: Mapping[str, Any],
    inference: Inference,
) -> tuple[dict[str, Any], list[Pixels]]:
    """The scores of the validation split and the predictions of its first images.

    Where there are several processes, each of them predicts a share of the images.
    """
    split = load_split(data_folder, "val")
    make_deterministic(seed)
    model = trained_model(experiment, state, inference)
    title = f"evaluating {experiment.model} ({experiment.profile}, seed {seed})"
    share = range(distributed.rank(), len(split), distributed.processes())
    shown: dict[int, Pixels] = {}
    predictions = keep_first(predict(model, split, share, title, inference), SAMPLES, shown)
    scores = score(split, predictions).over_processes()
    firsts = {index: image for part in distributed.gathered(shown) for index, image in part.items()}
    settings = experiment.model_dump(
        mode="json", include={"arguments", "training", "second_phase"}
    )
    result = {
        **run_record(experiment, seed, state, __name__),
        "architecture": experiment.architecture,
        "settings": settings | {"inference": inference.model_dump(mode="json")},
        "parameters": count_parameters(model),
        **summary(scores, split),
        "training": state["history"],
        "images": per_image(scores, split),
    }
    return result, [firsts[index] for index in sorted(firsts)]


def run_record(
    experiment: Experiment, seed: int, state: Mapping[str, Any], module: str
) -> dict[str, Any]:
    """What every result says of the run that it is of, for ``module`` that made it."""
    code = {"code_sha256": run_code_sha256(module, experiment.architecture)}
    return {
        "profile": experiment.profile,
        "model": experiment.model,
        "seed": seed,
        "provenance": state["provenance"] | code,
    }


def load_checkpoint(experiment: Experiment, seed: int, data_folder: Path, path: Path) -> Any:
    """A checkpoint, once its provenance is what it should be."""
    if not path.is_file():
        raise EvaluationError(f"{path} is missing: run `dvc repro`")
    state = torch.load(path, map_location="cpu", weights_only=True)
    for what, digest in training_provenance(experiment, seed, data_folder).items():
        if state["provenance"][what] != digest:
            raise EvaluationError(
                f"{path} was trained with other {what.removesuffix('_sha256')} than there are now: "
                f"run `dvc repro --force train@{experiment.profile}-{experiment.model}-{seed}`"
            )
    return state


def trained_model(experiment: Experiment, state: Any, inference: Inference) -> nn.Module:
    """The model of a checkpoint that ``load_checkpoint`` has read, as it is used."""
    arguments = experiment.arguments_for(inference)
    model = build_model(experiment.architecture, arguments, num_classes=len(state["classes"]))
    model.load_state_dict(state["model"])
    return model


def predict(
    model: nn.Module, split: Split, indices: Sequence[int], title: str, inference: Inference
) -> Iterator[tuple[int, Pixels]]:
    """Class indices (H, W) of these images, each with its own, those of one size together."""
    model = ready(model)
    with tqdm(
        desc=title, total=len(indices), unit="image", disable=distributed.rank() > 0
    ) as progress:
        for batch in batches_by_size(split.sizes, indices, BATCH_PIXELS[pick_device().type]):
            images = np.stack([split.image(index) for index in batch])
            labels = most_probable(probabilities(model, images, inference))
            yield from zip(batch, labels, strict=True)
            progress.update(len(batch))


def batches_by_size(
    sizes: Sequence[tuple[int, int]], indices: Sequence[int], most_pixels: int
) -> Iterator[list[int]]:
    """Images of the same size in batches of no more pixels, or one that has more."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index in indices:
        by_size.setdefault(sizes[index], []).append(index)
    for (height, width), alike in by_size.items():
        count = max(1, most_pixels // (height * width))
        yield from (alike[start : start + count] for start in range(0, len(alike), count))


def most_probable(probabilities: Tensor) -> Pixels:
    """Class indices (N, H, W) from (N, C, H, W)."""
    return probabilities.argmax(dim=1).to(torch.uint8).cpu().numpy()


def class_probabilities(
    model: nn.Module, split: Split, indices: Sequence[int], title: str, inference: Inference
) -> Iterator[Tensor]:
    """(C, H, W) of these images at their own size, one after the other."""
    model = ready(model)
    for index in tqdm(indices, desc=title, unit="image"):
        yield probabilities(model, split.image(index)[None], inference)[0]


def ready(model: nn.Module) -> nn.Module:
    """The model on the device, as ``probabilities`` needs it."""
    return model.to(pick_device()).to(memory_format=torch.channels_last).eval()


@torch.inference_mode()
def probabilities(model: nn.Module, pixels: Pixels, inference: Inference) -> Tensor:
    """(N, C, H, W) of images (N, H, W, 3): the mean over scales and mirror images."""
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    images = normalise(images.to(pick_device()))
    views = [
        (scale, flip)
        for scale in inference.scales
        for flip in ((False, True) if inference.flip else (False,))
    ]
    mean = view_probabilities(model, images, *views[0])
    for view in views[1:]:
        mean += view_probabilities(model, images, *view)
    return mean / len(views)


def view_probabilities(model: nn.Module, images: Tensor, scale: float, flip: bool) -> Tensor:
    """Of images (N, 3, H, W) seen rescaled, perhaps mirrored: (N, C, H, W) at their own size."""
    seen = rescale(images, scale)
    logits = model(seen.flip(-1)).flip(-1) if flip else model(seen)
    return resize_like(logits, images).softmax(dim=1)


def keep_first(
    predictions: Iterable[tuple[int, Pixels]], count: int, kept: dict[int, Pixels]
) -> Iterator[tuple[int, Pixels]]:
    """The same, those of the first ``count`` images kept as well."""
    for index, prediction in predictions:
        if index < count:
            kept[index] = prediction
        yield index, prediction


def score(split: Split, predictions: Iterable[tuple[int, Pixels]]) -> Scores:
    """Count the confusions of a split, prediction by prediction, each with its image's index."""
    classes = len(split.classes)
    background = split.classes.index("background") if "background" in split.classes else None
    areas = [object_areas(split.label(index), background) for index in range(len(split))]
    edges = area_edges(areas)
    per_image = np.zeros((len(split), classes, classes), dtype=np.int64)
    per_size = np.zeros((len(BINS), classes, classes), dtype=np.int64)
    per_width = np.zeros((len(TRIMAP_WIDTHS), classes, classes), dtype=np.int64)
    boundary = np.zeros((2, classes), dtype=np.int64)
    per_radius = None
    if split.context_radii is not None:
        per_radius = np.zeros((2, len(RADIUS_BINS) + 1), dtype=np.int64)
    for index, prediction in predictions:
        label = split.label(index)
        per_image[index] = metrics.confusion_matrix(label, prediction, classes)
        per_width += trimap_confusions(label, prediction[None], classes, TRIMAP_WIDTHS)[0]
        boundary += boundary_intersection_and_union(label, prediction, classes)
        radii = split.context_radius(index)
        if radii is not None and per_radius is not None:
            per_radius += correct_and_total(label, prediction, radii)
        bins = size_bins(areas[index], edges)
        for size in range(len(BINS)) if bins is not None else ():
            here = bins == size
            per_size[size] += metrics.confusion_matrix(label[here], prediction[here], classes)
    return Scores(per_image, per_size, edges, per_width, boundary, per_radius)


def summary(scores: Scores, split: Split) -> dict[str, Any]:
    """The figures of a run as fractions; null where there was nothing to measure."""
    confusion = scores.per_image.sum(axis=0)
    boundary_iou = metrics.ratio(*scores.boundary)
    iou = dict(zip(split.classes, map(fraction, metrics.iou(confusion)), strict=True))
    return {
        "classes": split.classes,
        "metrics": {
            "miou": fraction(metrics.miou(confusion)),
            "pixel_accuracy": fraction(metrics.pixel_accuracy(confusion)),
            "mean_accuracy": fraction(metrics.mean_accuracy(confusion)),
            "frequency_weighted_iou": fraction(metrics.frequency_weighted_iou(confusion)),
        },
        "iou": iou,
        "absent_classes": [name for name, value in iou.items() if value is None],
        "object_size": {
            "edges_px": [round(math.sqrt(edge), 2) for edge in scores.area_edges],
            "miou": [fraction(metrics.miou(per_size)) for per_size in scores.per_size],
        },
        "boundaries": {
            "trimap_widths_px": list(TRIMAP_WIDTHS),
            "trimap_miou": [fraction(metrics.miou(band)) for band in scores.per_width],
            "distance_share": BOUNDARY_SHARE,
            "boundary_iou": dict(zip(split.classes, map(fraction, boundary_iou), strict=True)),
            "boundary_miou": fraction(metrics.mean(boundary_iou)),
        },
        "context_radius": None if scores.per_radius is None else radius_record(scores.per_radius),
    }


def radius_record(per_radius: NDArray[np.int64]) -> dict[str, list[int]]:
    """Pixels found and all by context radius, the last beyond the largest."""
    correct, total = per_radius.tolist()
    return {"largest_px": list(RADIUS_BINS), "correct": correct, "total": total}


def per_image(scores: Scores, split: Split) -> dict[str, list[list[int]]]:
    """By image, [class, intersection, union] in pixels of every class whose union is not empty."""
    intersections, unions = metrics.intersection_and_union(scores.per_image)
    return {
        name: [[int(c), int(inter[c]), int(union[c])] for c in np.flatnonzero(union)]
        for name, inter, union in zip(split.names, intersections, unions, strict=True)
    }


def fraction(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
