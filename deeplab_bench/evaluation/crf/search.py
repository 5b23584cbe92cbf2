"""The search for w1, sigma_alpha and sigma_beta, coarse to fine, as in DeepLabv1 and v2."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tqdm import tqdm

from deeplab_bench.evaluation.crf.inference import CRFParameters
from deeplab_bench.evaluation.crf.refinement import Task, refine
from deeplab_bench.evaluation.measures import confusion as metrics

Values = Sequence[float]
Score = Callable[[list[CRFParameters]], list[float]]


@dataclass(frozen=True)
class Tried:
    parameters: CRFParameters
    miou: float


def coarse_to_fine(
    start: CRFParameters, grid: tuple[Values, Values, Values], score: Score
) -> list[Tried]:
    """All that was tried, the best first and of equals the smaller.

    First ``start`` and the grid of values of w1, sigma_alpha and sigma_beta; then, at half the
    grid's steps, what surrounds the best of them.
    """
    tried: dict[CRFParameters, float] = {}

    def try_all(candidates: Iterator[CRFParameters]) -> None:
        new = [candidate for candidate in candidates if candidate not in tried]
        tried.update(zip(new, score(new), strict=True))

    def ranked() -> list[Tried]:
        rank = sorted(tried, key=lambda parameters: (-tried[parameters], searched(parameters)))
        return [Tried(parameters, tried[parameters]) for parameters in rank]

    try_all(iter([start]))
    try_all(combined(start, grid))
    best = searched(ranked()[0].parameters)
    w1, sigma_alpha, sigma_beta = map(surroundings, grid, best)
    try_all(combined(start, (w1, sigma_alpha, sigma_beta)))
    return ranked()


def searched(parameters: CRFParameters) -> tuple[float, float, float]:
    return parameters.w1, parameters.sigma_alpha, parameters.sigma_beta


def combined(start: CRFParameters, grid: tuple[Values, Values, Values]) -> Iterator[CRFParameters]:
    for w1, sigma_alpha, sigma_beta in product(*grid):
        yield replace(start, w1=w1, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta)


def surroundings(values: Values, best: float) -> list[float]:
    """The best value and what lies halfway to its neighbours."""
    below = max((value for value in values if value < best), default=best)
    above = min((value for value in values if value > best), default=best)
    return sorted({(below + best) / 2, best, (best + above) / 2})


def spread(count: int, total: int) -> list[int]:
    """``count`` positions out of ``total``, or all if there are fewer, evenly apart."""
    count = min(count, total)
    return [index * total // count for index in range(count)]


def mious_of(
    candidates: list[CRFParameters], examples: Sequence[Task], workers: int, title: str
) -> list[float]:
    """The mIoU on the examples under each candidate, to the digits that are reported."""
    results = refine(
        (replace(example, parameters=c) for c in candidates for example in examples), workers
    )
    mious = []
    for _ in tqdm(candidates, desc=title, unit="candidate"):
        confusions = [next(results).confusions[0, -1] for _ in examples]
        mious.append(round(metrics.miou(np.sum(confusions, axis=0)), 6))
    return mious
