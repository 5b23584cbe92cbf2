"""Runs that are too good, or too bad, to be believed.

They are marked wherever their model is shown, with the reason, and count in its means all the same:
a number that is left out is easier to overlook than one that is marked.
"""

import math
from collections.abc import Iterator

from deeplab_bench.report.results import Results, Run

MARK = "†"


def implausible(results: Results) -> dict[str, str]:
    """What is implausible of each model's runs, of those that have such."""
    ceiling = results.params.profile[results.profile].miou_ceiling
    found: dict[str, list[str]] = {}
    for run in [*results.runs, *results.inferences]:
        name = ", ".join(filter(None, [f"seed {run.seed}", run.inference]))
        for reason in reasons(run, ceiling):
            found.setdefault(run.model, []).append(f"{name}: {reason}")
    return {model: "; ".join(of_runs) for model, of_runs in found.items()}


def reasons(run: Run, ceiling: float | None) -> Iterator[str]:
    """``ceiling`` is in percent."""
    miou = 100 * run.metrics.miou
    if ceiling is not None and miou > ceiling:
        yield f"mIoU {miou:.2f} % is above the ceiling of {ceiling:g} %"
    history = zip(run.training.iteration, run.training.loss, strict=True)
    diverged = next((i for i, loss in history if loss is None or not math.isfinite(loss)), None)
    if diverged is not None:
        yield f"the training loss is not finite by iteration {diverged}"
    only = only_prediction(run)
    if only is not None:
        yield f"all predictions are {only}"


def only_prediction(run: Run) -> str | None:
    """The class that is predicted everywhere, although there are others.

    Then the class's union is all valid pixels: half of the sum over classes of unions and
    intersections, as a union is ground truth and prediction less the intersection. The same holds
    if nothing but pixels of this very class is predicted as another.
    """
    intersections, unions = run.class_pixels().sum(axis=1)
    index = unions.argmax()
    everywhere = 2 * unions[index] == unions.sum() + intersections.sum()
    others = (unions > 0).sum() > 1
    return run.classes[index] if everywhere and others else None


def marked(name: str, found: dict[str, str]) -> str:
    """A model's name, perhaps with a comma and how it is used."""
    return f"{name} {MARK}" if name.partition(",")[0] in found else name
