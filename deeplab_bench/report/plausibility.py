"""Detection of implausible runs: their scores are too high, or they have failed."""

import math
from collections.abc import Iterable, Iterator

from deeplab_bench.results.records import EvaluationRecord
from deeplab_bench.settings.inference import PLAIN


def find_implausible(runs: Iterable[EvaluationRecord], ceiling: float | None) -> dict[str, str]:
    """Return the models that have an implausible run, with the reasons.

    ``ceiling`` is an mIoU in percent.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        name = f"seed {run.seed}" + (f", {run.inference}" if run.inference != PLAIN else "")
        for reason in find_reasons(run, ceiling):
            found.setdefault(run.model, []).append(f"{name}: {reason}")
    return {model: "; ".join(reasons) for model, reasons in found.items()}


def find_reasons(run: EvaluationRecord, ceiling: float | None) -> Iterator[str]:
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
