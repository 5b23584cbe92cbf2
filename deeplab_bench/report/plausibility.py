"""Runs whose numbers need a warning: implausible ones, bad starts, low training accuracy."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

from deeplab_bench.report.statistics import count_class_pixels
from deeplab_bench.results.records import EvaluationRecord
from deeplab_bench.settings.inference import PLAIN

LEAST_TRAINING_MIOU = 0.5


def find_implausible(runs: Iterable[EvaluationRecord], ceiling: float | None) -> dict[str, str]:
    """Return the models that have an implausible run, with the reasons.

    ``ceiling`` is an mIoU in percent.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        name = f"seed {run.seed}" + (f", {run.inference}" if run.inference != PLAIN else "")
        for reason in list_implausible(run, ceiling):
            found.setdefault(run.model, []).append(f"{name}: {reason}")
    return {model: "; ".join(reasons) for model, reasons in found.items()}


def find_bad_starts(runs: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Return the models with a run that started badly, with the reasons.

    Logits that say nothing give a loss of ln C for C classes. A first loss of more than twice as
    much means that the logits began far too large.
    """
    return describe_models(runs, describe_bad_starts)


def find_low_fits(runs: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Return the models with a low mIoU on training images, with the reasons."""
    return describe_models(runs, describe_low_fits)


def describe_models(
    runs: Iterable[EvaluationRecord], describe: Callable[[list[EvaluationRecord]], str]
) -> dict[str, str]:
    """Describe the runs of each model; leave out the models of which nothing is said."""
    by_model: dict[str, list[EvaluationRecord]] = {}
    for run in runs:
        by_model.setdefault(run.model, []).append(run)
    described = {model: describe(own) for model, own in by_model.items()}
    return {model: text for model, text in described.items() if text}


def describe_bad_starts(runs: Sequence[EvaluationRecord]) -> str:
    """Describe the bad starts; in older results, the first recorded loss stands in."""
    classes = len(runs[0].classes)
    largest = 2 * math.log(classes)
    starts = [run.training.start_loss or run.training.loss[0] for run in runs]
    large = [start for start in (math.inf if x is None else x for x in starts) if start > largest]
    if not large:
        return ""
    span = format_span(large)
    return f"first loss {span} in {len(large)} of {len(runs)}, above 2 ln {classes} = {largest:.1f}"


def describe_low_fits(runs: Sequence[EvaluationRecord]) -> str:
    seen = [run.training_images for run in runs]
    mious = [images.miou for images in seen if images is not None and images.miou is not None]
    low = [100 * miou for miou in mious if miou < LEAST_TRAINING_MIOU]
    return f"mIoU {format_span(low)} % in {len(low)} of {len(runs)}" if low else ""


def format_span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def list_implausible(run: EvaluationRecord, ceiling: float | None) -> Iterator[str]:
    """Yield why a run is implausible."""
    miou = 100 * run.metrics.miou
    if ceiling is not None and miou > ceiling:
        yield f"mIoU {miou:.2f} % is above the ceiling of {ceiling:g} %"
    losses = zip(run.training.iteration, run.training.loss, strict=True)
    diverged = next((i for i, loss in losses if loss is None or not math.isfinite(loss)), None)
    if diverged is not None:
        yield f"the training loss is not finite by iteration {diverged}"
    only = find_only_prediction(run)
    if only is not None:
        yield f"all predictions are {only}"


def find_only_prediction(run: EvaluationRecord) -> str | None:
    """Return the class that is predicted everywhere, if there are others; None otherwise.

    The union of such a class is all valid pixels. Their number is half of the sum of all unions and
    intersections, because a union is ground truth plus prediction minus intersection. The union is
    also all valid pixels if only pixels of this class are predicted as another class.
    """
    intersections, unions = count_class_pixels(run).sum(axis=1)
    index = unions.argmax()
    everywhere = 2 * unions[index] == unions.sum() + intersections.sum()
    others = (unions > 0).sum() > 1
    return run.classes[index] if everywhere and others else None
