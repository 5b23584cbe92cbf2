"""Coarse-to-fine search of w1, sigma_alpha and sigma_beta, as in DeepLabv1 and v2."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tqdm import tqdm

from deeplab_bench.evaluation.crf.mean_field import CRFParameters
from deeplab_bench.evaluation.crf.refinement import Task, refine_images
from deeplab_bench.evaluation.measures.confusion import miou

Values = Sequence[float]
Objective = Callable[[list[CRFParameters]], list[float]]


@dataclass(frozen=True)
class Candidate:
    """Parameters that were tried, and the mIoU on the search's images."""

    parameters: CRFParameters
    miou: float


def search_coarse_to_fine(
    start: CRFParameters, grid: tuple[Values, Values, Values], objective: Objective
) -> list[Candidate]:
    """Return all candidates, the best first; of equals, the one with the smaller values first.

    The first round tries ``start`` and every combination of the grid of w1, sigma_alpha and
    sigma_beta. The second tries the values around the best of these, at half the grid's steps.
    """
    tried: dict[CRFParameters, float] = {}

    def try_all(candidates: Iterator[CRFParameters]) -> None:
        new = [candidate for candidate in candidates if candidate not in tried]
        tried.update(zip(new, objective(new), strict=True))

    def rank() -> list[Candidate]:
        best_first = sorted(tried, key=lambda p: (-tried[p], get_searched_values(p)))
        return [Candidate(parameters, tried[parameters]) for parameters in best_first]

    try_all(iter([start]))
    try_all(combine(start, grid))
    best = get_searched_values(rank()[0].parameters)
    w1, sigma_alpha, sigma_beta = map(list_halfway_values, grid, best)
    try_all(combine(start, (w1, sigma_alpha, sigma_beta)))
    return rank()


def get_searched_values(parameters: CRFParameters) -> tuple[float, float, float]:
    """Return w1, sigma_alpha and sigma_beta."""
    return parameters.w1, parameters.sigma_alpha, parameters.sigma_beta


def combine(start: CRFParameters, grid: tuple[Values, Values, Values]) -> Iterator[CRFParameters]:
    """Yield ``start`` with every combination of w1, sigma_alpha and sigma_beta."""
    for w1, sigma_alpha, sigma_beta in product(*grid):
        yield replace(start, w1=w1, sigma_alpha=sigma_alpha, sigma_beta=sigma_beta)


def list_halfway_values(values: Values, best: float) -> list[float]:
    """List the best value and the values halfway between it and its neighbours."""
    below = max((value for value in values if value < best), default=best)
    above = min((value for value in values if value > best), default=best)
    return sorted({(below + best) / 2, best, (best + above) / 2})


def compute_mious(
    candidates: list[CRFParameters], examples: Sequence[Task], workers: int, title: str
) -> list[float]:
    """Compute the mIoU of the examples with each candidate, rounded as it is reported."""
    results = refine_images(
        (replace(example, parameters=c) for c in candidates for example in examples), workers
    )
    mious = []
    for _ in tqdm(candidates, desc=title, unit="candidate"):
        confusions = [next(results).confusions[0, -1] for _ in examples]
        mious.append(round(miou(np.sum(confusions, axis=0)), 6))
    return mious
