"""``python -m studies.coverage``: how often 95 % intervals of the mean mIoU hold the truth.

Networks and images are drawn from a population whose true mIoU is known. Three ways of making an
interval are compared with that of ``deeplab_bench.report.statistics``; the result is printed and
written to ``results/benchmarks/coverage.csv``.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from deeplab_bench.report.statistics import Source, half_interval, over_seeds
from deeplab_bench.results.files import RESULTS

Counts = NDArray[np.float64]

SEEDS, IMAGES, TRIALS, RESAMPLES = (3, 5), (20, 80, 160), 1000, 200


class Population(NamedTuple):
    """Standard deviations on the scale of log odds; a class is on ``presence`` of the images."""

    classes: int
    seed_effect: float
    image_effect: float
    interaction: float
    presence: float


POPULATIONS = {
    "balanced": Population(5, 0.12, 0.8, 0.4, 0.6),
    "seeds vary more": Population(5, 0.3, 0.5, 0.3, 0.6),
    "images vary more": Population(5, 0.03, 1.0, 0.3, 0.6),
    "rare classes": Population(8, 0.12, 0.8, 0.4, 0.15),
}


def draw(
    random: np.random.RandomState, population: Population, seeds: int, images: int
) -> tuple[Counts, Counts]:
    """Intersections and unions in pixels, (seeds, images, classes).

    A pixel that a class misses is a false alarm of another.
    """
    classes, seed_effect, image_effect, interaction, presence = population
    shown = random.random_sample((images, classes)) < presence
    shown[:, 0] = True
    area = shown * random.lognormal(5, 0.8, (images, classes))
    odds = (
        np.linspace(1.5, -0.5, classes)
        + random.normal(0, seed_effect, (seeds, 1, 1))
        + random.normal(0, seed_effect, (seeds, 1, classes))
        + random.normal(0, image_effect, (images, 1))
        + random.normal(0, image_effect / 2, (images, classes))
        + random.normal(0, interaction, (seeds, images, classes))
    )
    found = np.round(area / (1 + np.exp(-odds)))
    shares = np.linspace(1.6, 0.4, classes) / classes
    noise = random.lognormal(0, 0.3, found.shape)
    false_alarms = (area - found).sum(axis=-1, keepdims=True) * shares * noise
    return found, np.round(area + false_alarms)


def miou(found: Counts, union: Counts) -> NDArray[np.float64]:
    """Of the classes that are there, over the last axis."""
    iou = np.divide(found, union, out=np.full_like(found, np.nan), where=union > 0)
    return np.asarray(np.nanmean(iou, axis=-1))


def true_miou(population: Population) -> float:
    random = np.random.RandomState(1)
    large = (draw(random, population, 100, 3000) for _ in range(20))
    return float(np.mean([miou(i.sum(axis=1), u.sum(axis=1)).mean() for i, u in large]))


def intervals(
    random: np.random.RandomState, found: Counts, union: Counts
) -> Mapping[str, tuple[float, float]]:
    """Both ends by every method."""
    seeds, images, _ = union.shape
    scores = miou(found.sum(axis=1), union.sum(axis=1))
    weights = random.multinomial(images, np.full(images, 1 / images), RESAMPLES)
    resampled = miou(weights @ found, weights @ union)
    of_images = resampled.mean(axis=0)
    of_both = (random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds).T
    alone, mean = over_seeds(scores), float(scores.mean())
    ours = half_interval(alone, Source(float(of_images.var(ddof=1)), images - 1))
    return {
        "deeplab_bench.report.statistics": (mean - ours, mean + ours),
        "pigeonhole bootstrap": percentiles((of_both * resampled).sum(axis=0)),
        "Student's t over seeds": (mean - half_interval(alone), mean + half_interval(alone)),
        "bootstrap of images": percentiles(of_images),
    }


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def coverage() -> pd.DataFrame:
    """In percent of the trials, a row per population, seeds and images."""
    rows = []
    for name, population in POPULATIONS.items():
        truth = true_miou(population)
        for seeds in SEEDS:
            for images in IMAGES:
                random, held = np.random.RandomState(0), []
                title = f"{name}, {seeds} seeds, {images} images"
                for _ in tqdm(range(TRIALS), desc=title, unit="trial"):
                    ends = intervals(random, *draw(random, population, seeds, images))
                    held.append({m: low <= truth <= high for m, (low, high) in ends.items()})
                shares = (100 * pd.DataFrame(held).mean()).round(1).to_dict()
                rows.append({"population": name, "seeds": seeds, "images": images} | shares)
    return pd.DataFrame(rows)


def main() -> None:
    table = coverage()
    path = RESULTS / "benchmarks" / "coverage.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    print(table.to_markdown(index=False))


if __name__ == "__main__":
    main()
