"""Models whose numbers need a warning.

Their runs are implausible, badly started or unfinished, or their rates are beyond training crops.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from deeplab_bench.analysis.crop_reach import CropReach, measure_crop_reach
from deeplab_bench.report.statistics import count_class_pixels
from deeplab_bench.results.records import EvaluationRecord, Scores
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import PLAIN

LEAST_TRAINING_MIOU = 0.5
# The end of a training curve, the stretch before it, and the fall that counts, all as shares.
END = 0.2
LEAST_FALL = 0.1
LEAST_LOSSES = 5  # of each stretch
LARGEST_LITTLE_TRAINED = 0.1  # share of the atrous weights


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


def find_unfinished(runs: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Return the models with an unfinished training, with the reasons.

    Either the loss was still falling at the end, or the mIoU on training images is low. The second
    is needed, since a learning rate that goes to zero stops every fall.
    """
    return describe_models(runs, describe_unfinished)


def find_beyond_crops(
    experiments: Iterable[Experiment], image_size: tuple[int, int]
) -> dict[str, str]:
    """Return the models with many little trained atrous weights, with their rate and its maps.

    ``image_size`` is the height and width of an image in pixels.
    """
    found = {each.model: measure_crop_reach(each, image_size) for each in experiments}
    return {
        model: describe_crop_reach(reach)
        for model, reach in found.items()
        if reach is not None and reach.little_trained > LARGEST_LITTLE_TRAINED
    }


def describe_crop_reach(reach: CropReach) -> str:
    in_crop, in_image = ("x".join(map(str, size)) for size in (reach.in_crop, reach.in_image))
    return (
        f"{100 * reach.little_trained:.0f} % of the atrous weights met little but padding in "
        f"training: rate {reach.rate}, maps of {in_crop} in crops and {in_image} in images"
    )


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


def describe_unfinished(runs: Sequence[EvaluationRecord]) -> str:
    return ", ".join(reason for reason in (describe_low_fits(runs), describe_falls(runs)) if reason)


def describe_low_fits(runs: Sequence[EvaluationRecord]) -> str:
    seen = [run.training_images for run in runs]
    mious = [images.miou for images in seen if images is not None and images.miou is not None]
    low = [100 * miou for miou in mious if miou < LEAST_TRAINING_MIOU]
    if not low:
        return ""
    return f"mIoU on training images {format_span(low)} % in {len(low)} of {len(runs)}"


def describe_falls(runs: Sequence[EvaluationRecord]) -> str:
    falls = [100 * fall for run in runs if (fall := compute_fall(run.training.loss))]
    if not falls:
        return ""
    return f"loss still falling by {format_span(falls)} % in {len(falls)} of {len(runs)}"


def compute_fall(losses: Sequence[float | None]) -> float:
    """Compute how far the loss fell at the end, as a share of what it was before.

    The mean of the last fifth is compared with that of the fifth before it. The fall is 0 if it is
    below ``LEAST_FALL`` or three standard errors of the difference, or if the curve is too short.
    """
    count = round(END * len(losses))
    ends = [loss for loss in losses[-2 * count :] if loss is not None]
    if count < LEAST_LOSSES or len(ends) < 2 * count:
        return 0.0
    before, after = np.reshape(ends, (2, count))
    difference = before.mean() - after.mean()
    error = math.sqrt((before.var(ddof=1) + after.var(ddof=1)) / count)
    fall = difference / before.mean()
    return float(fall) if fall > LEAST_FALL and difference > 3 * error else 0.0


def format_span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def list_implausible(run: EvaluationRecord, ceiling: float | None) -> Iterator[str]:
    """Yield why a run is implausible."""
    if excess := describe_excess(run, ceiling):
        yield excess
    losses = zip(run.training.iteration, run.training.loss, strict=True)
    diverged = next((i for i, loss in losses if loss is None or not math.isfinite(loss)), None)
    if diverged is not None:
        yield f"the training loss is not finite by iteration {diverged}"
    only = find_only_prediction(run)
    if only is not None:
        yield f"all predictions are {only}"


def describe_excess(record: Scores, ceiling: float | None) -> str:
    """Describe an mIoU above the ceiling in percent; empty if it is not, or without a ceiling."""
    miou = 100 * record.metrics.miou
    if ceiling is None or miou <= ceiling:
        return ""
    return f"mIoU {miou:.2f} % is above the ceiling of {ceiling:g} %"


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
