"""Runs whose numbers need a warning: implausible ones, and networks that have not learned."""

import math
from collections.abc import Callable, Iterable, Iterator

from deeplab_bench.results.records import EvaluationRecord
from deeplab_bench.settings.inference import PLAIN

LEAST_TRAINING_MIOU = 0.5


def find_implausible(runs: Iterable[EvaluationRecord], ceiling: float | None) -> dict[str, str]:
    """Return the models that have an implausible run, with the reasons.

    ``ceiling`` is an mIoU in percent.
    """
    return collect_reasons(runs, lambda run: list_implausible(run, ceiling))


def find_untrained(runs: Iterable[EvaluationRecord]) -> dict[str, str]:
    """Return the reasons by model, for models with a network that has not learned."""
    return collect_reasons(runs, list_untrained)


def collect_reasons(
    runs: Iterable[EvaluationRecord], find: Callable[[EvaluationRecord], Iterable[str]]
) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for run in runs:
        name = f"seed {run.seed}" + (f", {run.inference}" if run.inference != PLAIN else "")
        found.setdefault(run.model, []).extend(f"{name}: {reason}" for reason in find(run))
    return {model: "; ".join(reasons) for model, reasons in found.items() if reasons}


def list_untrained(run: EvaluationRecord) -> Iterator[str]:
    """Yield why the network of a run counts as not trained.

    Logits that say nothing give a loss of ln C for C classes. A first loss of more than twice as
    much means that the logits began far too large.
    """
    start, largest = run.training.start_loss, 2 * math.log(len(run.classes))
    if start is not None and start > largest:
        yield f"its first loss is {start:.1f}, above 2 ln {len(run.classes)} = {largest:.1f}"
    seen = run.training_images
    if seen is not None and seen.miou is not None and seen.miou < LEAST_TRAINING_MIOU:
        yield f"mIoU on training images is {100 * seen.miou:.1f} %"


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
    intersections, unions = run.class_pixels().sum(axis=1)
    index = unions.argmax()
    everywhere = 2 * unions[index] == unions.sum() + intersections.sum()
    others = (unions > 0).sum() > 1
    return run.classes[index] if everywhere and others else None
