"""Simulation of how often intervals and comparisons are right: ``python -m studies.coverage``.

Three simulations, printed and written to ``results/benchmarks``:

- ``coverage.csv``: how often 95 % intervals of a mean mIoU contain the true value. Networks and
  images come from populations with a known true mIoU. The interval of
  ``deeplab_bench.report.statistics`` is compared with three other methods.
- ``families.csv``: how often comparisons of equal models, all pairs of them, declare at least one
  difference. This family-wise error should be 5 % or less.
- ``blocks.csv``: how often 95 % intervals of one clip of 101 images contain the true mean of all
  clips, by the length of the blocks that are resampled. The images are autocorrelated.
"""

import argparse
from collections.abc import Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from deeplab_bench.data.camvid import cut_into_blocks
from deeplab_bench.report.statistics import (
    SIGNIFICANT,
    compare,
    compute_margin_of_error,
    compute_seed_variance,
    correct_variance,
    draw_image_weights,
)
from deeplab_bench.results.files import RESULTS

Counts = NDArray[np.float64]

SEEDS, IMAGES, TRIALS, RESAMPLES = (3, 5), (20, 80, 160), 1000, 200
MODELS, FAMILY_SEEDS, FAMILY_IMAGES, FAMILY_TRIALS = (2, 4, 8), (2, 3, 5), 160, 1000
CLIP_IMAGES, CLIPS, CLIP_RESAMPLES = 101, 10_000, 2000
CORRELATIONS, BLOCK_LENGTHS = (0.0, 0.91, 0.95, 0.98), (1, 5, 10, 20, 25, 34, 50)


class Population(NamedTuple):
    """The variation of a simulated population.

    The effects are standard deviations of log odds. ``presence`` is the fraction of the images that
    show a class.
    """

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
    """Draw intersections and unions in pixels, both (seeds, images, classes).

    A pixel that one class misses is a false positive of another class.
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
    false_positives = (area - found).sum(axis=-1, keepdims=True) * shares * noise
    return found, np.round(area + false_positives)


def miou(found: Counts, union: Counts) -> NDArray[np.float64]:
    """Compute the mIoU of the classes that occur. The last axis is the class."""
    iou = np.divide(found, union, out=np.full_like(found, np.nan), where=union > 0)
    return np.asarray(np.nanmean(iou, axis=-1))


def estimate_true_miou(population: Population) -> float:
    """Estimate the true mIoU from 20 draws of 100 seeds and 3000 images."""
    random = np.random.RandomState(1)
    large = (draw(random, population, 100, 3000) for _ in range(20))
    return float(np.mean([miou(i.sum(axis=1), u.sum(axis=1)).mean() for i, u in large]))


def compute_intervals(
    random: np.random.RandomState, found: Counts, union: Counts
) -> Mapping[str, tuple[float, float]]:
    """Compute the lower and upper end of the interval by each method."""
    seeds, images, _ = union.shape
    scores = miou(found.sum(axis=1), union.sum(axis=1))
    weights = random.multinomial(images, np.full(images, 1 / images), RESAMPLES)
    resampled = miou(weights @ found, weights @ union)
    image_resamples = resampled.mean(axis=0)
    seed_weights = (random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds).T
    alone, mean = compute_seed_variance(scores), float(scores.mean())
    ours = compute_margin_of_error(alone, correct_variance(image_resamples.var(ddof=1), images))
    return {
        "deeplab_bench.report.statistics": (mean - ours, mean + ours),
        "pigeonhole bootstrap": find_interval((seed_weights * resampled).sum(axis=0)),
        "Student's t over seeds": (
            mean - compute_margin_of_error(alone),
            mean + compute_margin_of_error(alone),
        ),
        "bootstrap of images": find_interval(image_resamples),
    }


def find_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Find the 2.5th and 97.5th percentile."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def simulate_coverage() -> pd.DataFrame:
    """Compute the coverage in percent, one row per population, number of seeds and of images."""
    rows = []
    for name, population in POPULATIONS.items():
        truth = estimate_true_miou(population)
        for seeds in SEEDS:
            for images in IMAGES:
                random, held = np.random.RandomState(0), []
                title = f"{name}, {seeds} seeds, {images} images"
                for _ in tqdm(range(TRIALS), desc=title, unit="trial"):
                    ends = compute_intervals(random, *draw(random, population, seeds, images))
                    held.append({m: low <= truth <= high for m, (low, high) in ends.items()})
                shares = (100 * pd.DataFrame(held).mean()).round(1).to_dict()
                rows.append({"population": name, "seeds": seeds, "images": images} | shares)
    return pd.DataFrame(rows)


class Family(NamedTuple):
    """A family of equal models, by standard deviations of their scores in points.

    ``seed_effects`` are of one seed, those of the first and of the last model; ``image_effect`` is
    of a mean over all images, and differs from model to model.
    """

    seed_effects: tuple[float, float]
    image_effect: float


FAMILIES = {
    "equal, images vary less": Family((2.0, 2.0), 0.3),
    "equal, as much as images": Family((2.0, 2.0), 1.0),
    "equal, images vary more": Family((1.0, 1.0), 3.0),
    "one to three, images vary less": Family((1.0, 3.0), 0.3),
    "one to three, as much as images": Family((1.0, 3.0), 1.0),
}


def draw_family(
    random: np.random.RandomState, family: Family, models: int, seeds: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw scores (seeds, models) and their means on resamples of the images."""
    effects = np.linspace(*family.seed_effects, models)
    per_image = random.normal(0, family.image_effect * FAMILY_IMAGES**0.5, (FAMILY_IMAGES, models))
    scores = random.normal(0, effects, (seeds, models)) + per_image.mean(axis=0)
    even = np.full(FAMILY_IMAGES, 1 / FAMILY_IMAGES)
    weights = random.multinomial(FAMILY_IMAGES, even, RESAMPLES)
    return pd.DataFrame(scores), pd.DataFrame(weights @ per_image / FAMILY_IMAGES)


def simulate_families() -> pd.DataFrame:
    """Compute the family-wise error in percent, one row per family, models and seeds."""
    rows = []
    for (name, family), models, seeds in product(FAMILIES.items(), MODELS, FAMILY_SEEDS):
        random, errors = np.random.RandomState(0), 0
        title = f"{name}, {models} models, {seeds} seeds"
        for _ in tqdm(range(FAMILY_TRIALS), desc=title, unit="trial"):
            compared = compare(*draw_family(random, family, models, seeds), FAMILY_IMAGES)
            errors += bool(compared["p_holm"].min() < SIGNIFICANT)
        error = round(100 * errors / FAMILY_TRIALS, 1)
        rows.append({"seeds' variances": name, "models": models, "seeds": seeds, "error": error})
    return pd.DataFrame(rows)


def draw_clips(random: np.random.RandomState, correlation: float, clips: int) -> Counts:
    """Draw the scores of the images of clips (clips, images): mean 0, standard deviation 1.

    They are an autoregressive process of first order. ``correlation`` is that of neighbours.
    """
    scores = random.normal(size=(clips, CLIP_IMAGES))
    for image in range(1, CLIP_IMAGES):
        scores[:, image] *= (1 - correlation**2) ** 0.5
        scores[:, image] += correlation * scores[:, image - 1]
    return scores


def correlate_neighbours(scores: Counts) -> float:
    """Compute what one clip shows of the correlation of neighbours, as the mean over clips.

    It is too low, as the mean is that of the clip.
    """
    parts = scores - scores.mean(axis=1, keepdims=True)
    return float(((parts[:, :-1] * parts[:, 1:]).sum(axis=1) / (parts**2).sum(axis=1)).mean())


def compute_clip_margins(scores: Counts, length: int) -> tuple[int, Counts]:
    """Compute the number of blocks of this length, and half the interval of each clip's mean."""
    blocks = np.array(cut_into_blocks(CLIP_IMAGES, length))
    groups = int(blocks.max()) + 1
    weights = np.concatenate([*draw_image_weights(groups, CLIP_RESAMPLES)])[:, blocks]
    means = weights @ scores.T / weights.sum(axis=1, keepdims=True)
    return groups, compute_margin_of_error(correct_variance(means.var(axis=0, ddof=1), groups))


def simulate_blocks(clips: int = CLIPS) -> pd.DataFrame:
    """Compute the coverage in percent, one row per correlation and length of the blocks.

    ``shown`` is the correlation that one clip shows, and ``half_interval`` is in standard errors of
    a clip's mean.
    """
    rows = []
    for correlation in CORRELATIONS:
        scores = draw_clips(np.random.RandomState(0), correlation, clips)
        means, shown = scores.mean(axis=1), correlate_neighbours(scores)
        for length in BLOCK_LENGTHS:
            blocks, margins = compute_clip_margins(scores, length)
            row = {"correlation": correlation, "shown": shown, "length": length, "blocks": blocks}
            row["coverage"] = 100 * (np.abs(means) < margins).mean()
            rows.append(row | {"half_interval": margins.mean() / means.std()})
    return pd.DataFrame(rows).round({"shown": 2, "coverage": 1, "half_interval": 2})


SIMULATIONS = {
    "families": simulate_families,
    "coverage": simulate_coverage,
    "blocks": simulate_blocks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(SIMULATIONS)} (default: all)"
    )
    for name in parser.parse_args().names or SIMULATIONS:
        table = SIMULATIONS[name]()
        path = RESULTS / "benchmarks" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, lineterminator="\n")
        print(table.to_markdown(index=False))


if __name__ == "__main__":
    main()
