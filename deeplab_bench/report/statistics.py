"""Intervals and tests for a mean mIoU, and for a difference of two, over seeds and images.

Seeds and images are both a sample: another seed trains another network, another validation set has
other images. The mean over S seeds on N images has two variances:

- seeds: s^2 / S, where s^2 is the variance of the seeds' scores, with S - 1 degrees of freedom;
- images: the variance of the mean over resamples of the images (Efron and Tibshirani, An
  Introduction to the Bootstrap, 1993, Chapter 6), with N - 1 degrees of freedom. Every run has the
  same resamples.

The standard error is the root of their sum. Its degrees of freedom are Satterthwaite's (Biometrics
Bulletin 2, 1946). The interval is Student's t. With one variance alone this is the plain t
interval.

To resample the seeds as well, as Owen's pigeonhole bootstrap does (Annals of Applied Statistics 1,
2007), gives intervals that are too narrow for few seeds. The table shows how many of 100 intervals
at 95 % held the truth in simulations of five classes on 20 to 160 images, whether seeds or images
vary more (``python -m studies.coverage``):

================================  =========  =========
method                            3 seeds    5 seeds
================================  =========  =========
this one                          91 to 94   91 to 96
pigeonhole bootstrap              78 to 93   87 to 94
Student's t over seeds alone      39 to 95   22 to 94
bootstrap of images alone         41 to 92   49 to 93
================================  =========  =========

With rare classes the intervals of every method are too narrow. If each class is on 15 % of the
images, 80 of 100 intervals held the truth with 20 images, 92 with 80 images.
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
    """A source of variation: the variance of the mean, and its degrees of freedom.

    With no degrees of freedom the variance is unknown.
    """

    variance: float
    freedom: int


class Estimate(NamedTuple):
    """A mean over seeds, the standard deviation, the 95 % interval; NaN if unknown."""

    mean: float
    std: float
    ci95_low: float
    ci95_high: float


def estimate(scores: ArrayLike, *others: Source) -> Estimate:
    """Estimate the mean of scores (S,), one for each seed; ``others`` vary the mean too."""
    scores = np.asarray(scores, dtype=np.float64)
    if not scores.size:
        return Estimate(*[float("nan")] * 4)
    std = float(scores.std(ddof=1)) if scores.size > 1 else float("nan")
    mean = float(scores.mean())
    half = half_interval(over_seeds(scores), *others)
    return Estimate(mean, std, mean - half, mean + half)


def over_seeds(scores: Floats) -> Source:
    """Estimate the variance over seeds of the mean of scores (S,)."""
    variance = scores.var(ddof=1) / scores.size if scores.size > 1 else 0
    return Source(float(variance), scores.size - 1)


def estimate_over_images(resampled: pd.DataFrame, images: int) -> dict[Hashable, Source]:
    """Estimate the variance over images of each column; a row is a resample of the images."""
    return {name: Source(variance, images - 1) for name, variance in resampled.var().items()}


def half_interval(*sources: Source) -> float:
    """Return half the length of the 95 % interval."""
    error, freedom = standard_error(*sources)
    return float(stats.t.ppf((1 + LEVEL) / 2, freedom) * error)


def p_value(difference: float, *sources: Source) -> float:
    """Return the two-sided p of the hypothesis that the true difference is 0."""
    error, freedom = standard_error(*sources)
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def standard_error(*sources: Source) -> tuple[float, float]:
    """Return the standard error and its degrees of freedom, from the known variances."""
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
    """Compute the mIoU of each run on resamples of the images, (resamples, runs), as fractions.

    ``intersections`` and ``unions`` are pixels (runs, images, C). All runs have the same resamples,
    and so have all calls with as many images. A mean leaves out classes without a union.
    """
    runs, images, classes = unions.shape
    by_image = [
        counts.transpose(1, 0, 2).reshape(images, runs * classes).astype(np.float64)
        for counts in (intersections, unions)
    ]
    parts = []
    for weights in draw_image_weights(images, resamples):
        # Sums of whole numbers below 2^53 are exact in any order.
        part, whole = ((weights @ counts).reshape(-1, runs, classes) for counts in by_image)
        iou = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        parts.append(iou.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))
    return np.concatenate(parts)


def draw_image_weights(images: int, resamples: int) -> Iterator[Floats]:
    """Yield how often each image is in each resample, (some resamples, images) at a time."""
    generator = np.random.RandomState(0)  # its streams, unlike Generator's, never change
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, resamples - first)
        drawn = generator.randint(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def compare(scores: pd.DataFrame, resampled: pd.DataFrame, images: int) -> pd.DataFrame:
    """Compare every two models: difference, interval, ``p_value``, ``p_holm`` over all pairs.

    ``scores`` are (seeds, models), ``resampled`` the mean scores on resamples of the images
    (resamples, models). Differences are between equal seeds and on equal images. ``model`` is the
    higher of a pair; the highest models come first.
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
    """Adjust p for the number of tests (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = p_values.argsort()
    factors = np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def rank_models(means: "pd.Series[float]", compared: pd.DataFrame) -> pd.DataFrame:
    """Rank the models, 1 for the highest mean; ``rank_low`` to ``rank_high`` are not excluded.

    A model is below each that is significantly higher and above each that is significantly lower
    (Al Mohamad, Goeman and van Zwet, Biometrics 78, 2022). All ranks together have the confidence
    of Holm's corrected comparisons.
    """
    decided = compared[compared["p_holm"] < SIGNIFICANT]
    above = decided["other"].value_counts().reindex(means.index, fill_value=0)
    below = decided["model"].value_counts().reindex(means.index, fill_value=0)
    rank = means.rank(ascending=False, method="min").astype(int)
    return pd.DataFrame({"rank": rank, "rank_low": 1 + above, "rank_high": len(means) - below})
