"""Timing of several works in turn, so that a drift of the machine's speed affects all alike."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

Work = Callable[[], object]

WARM_UP_ROUNDS = 2


def time_in_rounds(
    works: Mapping[str, Work],
    device: torch.device,
    *,
    seconds: float,
    min_rounds: int,
    warm_up: int = WARM_UP_ROUNDS,
    title: str = "timing",
) -> dict[str, list[float]]:
    """Time every piece of work once per round. Returns the seconds of each round, by name.

    The first ``warm_up`` rounds do not count. The others go on for ``seconds``, and until there are
    ``min_rounds``. Every second round runs in reverse order.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(warm_up):
        for work in works.values():
            time_once(work, device)
    started = time.monotonic()
    with tqdm(desc=title, unit="round") as bar:
        while bar.n < min_rounds or time.monotonic() - started < seconds:
            for name in list(works)[:: -1 if bar.n % 2 else 1]:
                times[name].append(time_once(works[name], device))
            bar.update()
    return times


def time_once(work: Work, device: torch.device) -> float:
    """Return the seconds that the work takes on a device that is idle before and after.

    A GPU is timed by CUDA events.
    """
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        synchronise(device)
        begin.record()
        work()
        end.record()
        synchronise(device)
        return begin.elapsed_time(end) / 1000
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rotate_inputs(function: Callable[[Tensor], object], inputs: Iterable[Tensor]) -> Work:
    """Return work that calls the function on one input after another, again and again."""
    turns = itertools.cycle(inputs)
    return lambda: function(next(turns))


def compute_quantiles(values: Sequence[float], *percents: int) -> dict[str, float]:
    """Compute percentiles with linear interpolation, by name: ``p50`` is the median."""
    return {f"p{p}": float(np.percentile(values, p)) for p in percents}


def compute_ratios(times: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Compute the ratio in each round, its median and its quartiles."""
    return compute_quantiles(np.divide(times, others).tolist(), 25, 50, 75)
