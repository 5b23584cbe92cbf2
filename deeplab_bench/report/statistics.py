"""How sure a mean mIoU is, and a difference of two: seeds and images are both a sample.

Another seed trains another network, another validation set shows other images. A mean over S seeds
on N images has from each of them a variance:

- seeds: s^2 / S, of the seeds' scores, with S - 1 degrees of freedom;
- images: the variance of the mean over resamples of the images (Efron and Tibshirani, An
  Introduction to the Bootstrap, 1993, Chapter 6), the same images for every run, with N - 1.

The standard error is the root of their sum, its degrees of freedom are Satterthwaite's (Biometrics
Bulletin 2, 1946), the interval is Student's t. With one source alone this is the plain t interval.

Resampling seeds as well, Owen's pigeonhole bootstrap (Annals of Applied Statistics 1, 2007), is too
narrow for few seeds. In simulations of five classes on 20 to 160 images, whether seeds or images
vary more, so many of 100 intervals at 95 % held the truth (``python -m studies.coverage``):

================================  =========  =========
method                            3 seeds    5 seeds
================================  =========  =========
this one                          91 to 94   91 to 96
pigeonhole bootstrap              78 to 93   87 to 94
Student's t over seeds alone      39 to 95   22 to 94
bootstrap of images alone         41 to 92   49 to 93
================================  =========  =========

Classes that few images show make every method too sure: where each is on three images in twenty,
80 of 100 intervals held the truth with 20 images, 92 with 80.
"""

from collections.abc import Hashable, Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
SIGNIFICANT = 0.05
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 500

Floats = NDArray[np.float64]


class Source(NamedTuple):
    """What a mean varies with: its variance for that, and the degrees of freedom of the latter.

    Without a degree of freedom nothing is known of the variance.
    """

    variance: float
    freedom: int


class Estimate(NamedTuple):
    """A mean over seeds, their standard deviation, the interval; NaN where nothing is known."""

    mean: float
    std: float
    ci95_low: float
    ci95_high: float


def estimate(scores: ArrayLike, *others: Source) -> Estimate:
    """Of scores (S,), one a seed; ``others`` vary the mean besides the seeds."""
    scores = np.asarray(scores, dtype=np.float64)
    if not scores.size:
        return Estimate(*[float("nan")] * 4)
    std = float(scores.std(ddof=1)) if scores.size > 1 else float("nan")
    mean = float(scores.mean())
    half = half_interval(over_seeds(scores), *others)
    return Estimate(mean, std, mean - half, mean + half)


def over_seeds(scores: Floats) -> Source:
    """Of the mean of scores (S,)."""
    variance = scores.var(ddof=1) / scores.size if scores.size > 1 else 0
    return Source(float(variance), scores.size - 1)


def over_images(resampled: pd.DataFrame, images: int) -> dict[Hashable, Source]:
    """Of every column, whose values over resamples of so many images are its rows."""
    return {name: Source(variance, images - 1) for name, variance in resampled.var().items()}


def half_interval(*sources: Source) -> float:
    """Half the length of the interval."""
    error, freedom = standard_error(*sources)
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * error)


def p_value(difference: float, *sources: Source) -> float:
    """Two-sided, of the hypothesis that the true difference is 0."""
    error, freedom = standard_error(*sources)
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def standard_error(*sources: Source) -> tuple[float, float]:
    """It and its degrees of freedom, of the sources that anything is known of."""
    known = [source for source in sources if source.freedom > 0]
    if not known:
        return float("nan"), float("nan")
    variance = sum(source.variance for source in known)
    if variance == 0:
        return 0.0, min(source.freedom for source in known)
    freedom = variance**2 / sum(source.variance**2 / source.freedom for source in known)
    return variance**0.5, freedom


def resampled_miou(
    intersections: NDArray[np.int64], unions: NDArray[np.int64], resamples: int = RESAMPLES
) -> Floats:
    """mIoU of every run on resamples of the images, (resamples, runs), as fractions.

    From the pixels (runs, images, C) of each class. Every run has the same resamples, and so has
    every call for as many images. Means are over the classes that a resample shows the run.
    """
    runs, images, classes = unions.shape
    by_image = [
        counts.transpose(1, 0, 2).reshape(images, runs * classes).astype(np.float64)
        for counts in (intersections, unions)
    ]
    parts = []
    for weights in image_weights(images, resamples):
        # Whole numbers below 2^53: exact, in whatever order they are added.
        part, whole = ((weights @ counts).reshape(-1, runs, classes) for counts in by_image)
        iou = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        parts.append(iou.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))
    return np.concatenate(parts)


def image_weights(images: int, resamples: int) -> Iterator[Floats]:
    """How often each image is in each resample, (some resamples, images) at a time."""
    generator = np.random.RandomState(0)  # its streams, unlike Generator's, never change
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, resamples - first)
        drawn = generator.randint(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def compare(scores: pd.DataFrame, resampled: pd.DataFrame, images: int) -> pd.DataFrame:
    """Every pair of models: difference, interval, ``p_value``, and ``p_holm`` over all pairs.

    From scores (seeds, models) and mean scores on resamples of the images (resamples, models);
    differences are between equal seeds and on equal images. ``model`` is the higher of a pair, rows
    go from the highest models downward.
    """
    order = scores.mean().sort_values(ascending=False, kind="stable").index
    rows = []
    for model, other in combinations(order, 2):
        difference = (scores[model] - scores[other]).to_numpy()
        image_source = Source(float((resampled[model] - resampled[other]).var()), images - 1)
        found = estimate(difference, image_source)
        p = p_value(found.mean, over_seeds(difference), image_source)
        rows.append((model, other, found.mean, found.ci95_low, found.ci95_high, p))
    columns = ["model", "other", "difference", "ci95_low", "ci95_high", "p_value"]
    compared = pd.DataFrame(rows, columns=columns)
    return compared.assign(p_holm=holm(compared["p_value"]))


def holm(p_values: ArrayLike) -> Floats:
    """Adjusted for so many tests (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = p_values.argsort()
    factors = np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def ranks(means: "pd.Series[float]", compared: pd.DataFrame) -> pd.DataFrame:
    """By model ``rank``, 1 for the highest mean, and its interval from ``rank_low`` on.

    Of K models one is below each that is significantly higher and above each that is significantly
    lower (Al Mohamad, Goeman and van Zwet, Biometrics 78, 2022); all ranks together hold as surely
    as Holm's corrected comparisons.
    """
    decided = compared[compared["p_holm"] < SIGNIFICANT]
    above = decided["other"].value_counts().reindex(means.index, fill_value=0)
    below = decided["model"].value_counts().reindex(means.index, fill_value=0)
    rank = means.rank(ascending=False, method="min").astype(int)
    return pd.DataFrame({"rank": rank, "rank_low": 1 + above, "rank_high": len(means) - below})
