"""Measurement of the speed-up of the CRF with several worker processes.

``python -m studies.crf_workers`` compares the workers with the same number of independent
processes. These show the machine's own limit, since virtual processors may share a core. The images
are generated, with the size and the number of classes of Pascal VOC.
"""

import argparse
import math
import multiprocessing
import time
from collections.abc import Iterator
from itertools import repeat
from threading import Barrier

import numpy as np

# Worker processes import this module, so nothing here imports torch: they must start quickly.
from deeplab_bench.evaluation.crf import CRFParameters, Refined, Task, refine_images
from deeplab_bench.evaluation.crf.refinement import refine_image

PARAMETERS = CRFParameters(w1=4, sigma_alpha=49, sigma_beta=5, w2=3, sigma_gamma=3)
WARM_UP_SECONDS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=30, help="time for each measurement (default: 30)"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"))
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    height, width = arguments.size
    task = make_crf_task(height, width, arguments.classes)
    alone = None
    for workers in arguments.workers:
        possible = measure_independent_processes(task, workers, arguments.seconds)
        rate = measure_workers(task, workers, arguments.seconds)
        alone = alone or possible / workers
        print(
            f"{workers} workers: {rate:.2f} images/s, {rate / possible:.0%} of the rate of "
            f"{workers} independent processes, {rate / (alone * workers):.0%} of the ideal speed-up"
        )


def make_crf_task(height: int, width: int, classes: int) -> Task:
    """Make an image of coloured blocks with noise, and random probabilities."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 200, (math.ceil(height / 25), math.ceil(width / 25), 3))
    image = blocks.repeat(25, axis=0).repeat(25, axis=1)[:height, :width]
    image = image + random.integers(0, 30, image.shape)
    probabilities = random.dirichlet(np.ones(classes), (height, width)).transpose(2, 0, 1)
    return Task(
        probabilities.astype(np.float32),
        image.astype(np.uint8),
        (image[..., 0] // 100).astype(np.uint8),
        PARAMETERS,
        iterations=(0, 1, 2, 5, 10),
        widths=(1, 2, 5, 10, 20, 40, math.inf),
        count_regions=True,
    )


def measure_workers(task: Task, workers: int, seconds: float) -> float:
    """Measure images/s of worker processes, after ``WARM_UP_SECONDS`` in which they start."""
    results = refine_images(repeat(task), workers)
    count_within(results, WARM_UP_SECONDS)
    started = time.perf_counter()
    images = count_within(results, seconds)
    elapsed = time.perf_counter() - started
    results.close()
    return images / elapsed


def measure_independent_processes(task: Task, processes: int, seconds: float) -> float:
    """Measure images/s of processes that share no queue, in total."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        work = (task, seconds, context.Manager().Barrier(processes))
        return sum(pool.starmap(measure_one_process, [work] * processes, chunksize=1))


def measure_one_process(task: Task, seconds: float, ready: Barrier) -> float:
    """Measure images/s of this process, once all processes are ready."""
    refine_image(task)
    ready.wait()
    started, images = time.perf_counter(), 0
    while time.perf_counter() < started + seconds:
        refine_image(task)
        images += 1
    return images / (time.perf_counter() - started)


def count_within(results: Iterator[Refined], seconds: float) -> int:
    """Count the results that arrive within a time."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        next(results)
        count += 1
    return count


if __name__ == "__main__":
    main()
