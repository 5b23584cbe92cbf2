"""Uncertainty of a mean mIoU, and of the difference of two means. Seeds and images are samples.

Another seed trains another network, and another validation set shows other images. Both add
variance to a mean over S seeds and N images:

- seeds: s^2 / S, with the variance s^2 of the scores of the seeds, and S - 1 degrees of freedom;
- images: the variance of the mean over bootstrap resamples of the images (Efron and Tibshirani, An
  Introduction to the Bootstrap, 1993, Chapter 6), with N - 1 degrees of freedom. All runs use the
  same resamples. If images are not independent, whole groups of them are drawn, and N is the number
  of groups; a clip is cut into blocks (Carlstein, Annals of Statistics 14, 1986).

The standard error is the root of the sum of both. Its degrees of freedom are Satterthwaite's
(Biometrics Bulletin 2, 1946), and the interval is Student's t. If only one source is known, this is
the plain t interval.

Comparisons of K models pool the variance of the seeds over all models, with K (S - 1) degrees of
freedom: with few seeds, that of one pair is often much too small by chance. In simulations of 2 to
8 equal models with 2 to 5 seeds (``python -m studies.coverage``), Holm's adjusted tests declared a
difference in 3 to 7 of 100 families if all models vary alike, and in 5 to 10 if the
standard deviations of the seeds go from one to three.

Owen's pigeonhole bootstrap (Annals of Applied Statistics 1, 2007) also resamples the seeds, but its
intervals are too narrow for few seeds. In simulations with five classes and 20 to 160 images, where
either seeds or images vary more, this many of 100 intervals at 95 % contained the true value
(``python -m studies.coverage``):

================================  =========  =========
method                            3 seeds    5 seeds
================================  =========  =========
this module                       91 to 94   92 to 96
pigeonhole bootstrap              78 to 93   87 to 94
Student's t over seeds alone      39 to 95   22 to 94
bootstrap of images alone         41 to 92   49 to 93
================================  =========  =========

If few images show a class, all methods give intervals that are too narrow. With each class on three
images in twenty, 81 of 100 intervals contained the true value with 20 images, and 92 with 80.

Intervals from a single clip are too narrow, too: if images are as much alike as CamVid's, 70 of 100
with blocks of 25 images, 14 with single ones. ``docs/glossary.md`` has the figures.
"""

import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from deeplab_bench.results.records import Scores

LEAST_GROUPS = 10  # of images; with fewer, comparisons are undecided
LEVEL = 0.95
SIGNIFICANT = 0.05
RESAMPLES = 10_000
RESAMPLES_AT_ONCE = 500
MANY = 100

Floats = NDArray[np.float64]


class Source(NamedTuple):
    """A source of variance of a mean: the variance it adds, and the degrees of freedom.

    With 0 degrees of freedom the variance is unknown.
    """

    variance: float | Floats
    freedom: int


class Estimate(NamedTuple):
    """Mean over seeds, standard deviation of seeds, and interval. NaN means unknown."""

    mean: float
    std: float
    ci95_low: float
    ci95_high: float


def estimate(scores: ArrayLike, *others: Source) -> Estimate:
    """Estimate the mean of scores (S,), one per seed. ``others`` are more sources of variance."""
    scores = np.asarray(scores, dtype=np.float64)
    if not scores.size:
        return Estimate(*[float("nan")] * 4)
    std = float(scores.std(ddof=1)) if scores.size > 1 else float("nan")
    mean = float(scores.mean())
    margin = compute_margin_of_error(compute_seed_variance(scores), *others)
    return Estimate(mean, std, mean - margin, mean + margin)


def compute_seed_variance(scores: Floats) -> Source:
    """Compute the variance that seeds add to the mean of scores (S,)."""
    variance = scores.var(ddof=1) / scores.size if scores.size > 1 else 0
    return Source(float(variance), scores.size - 1)


def estimate_over_images(resampled: pd.DataFrame, groups: int) -> dict[Hashable, Source]:
    """Compute the variance that images add to each column.

    A row is one resample of ``groups`` groups of images, or single images.
    """
    return {name: correct_variance(variance, groups) for name, variance in resampled.var().items()}


def correct_variance(variance: Any, groups: int) -> Source:
    """Return the variance over resamples of so many groups as a source, corrected if they are few.

    For a mean of N values it is too small by the factor (N - 1) / N. From ``MANY`` on this is less
    than the random error of 10,000 resamples, 0.7 % of a standard error.
    """
    few = 1 < groups < MANY
    return Source(variance * groups / (groups - 1) if few else variance, groups - 1)


def compute_margin_of_error(*sources: Source) -> Any:
    """Compute half the length of the interval; NaN if no source is known."""
    error, freedom = compute_standard_error(*sources)
    return stats.t.ppf((1 + LEVEL) / 2, freedom) * error


def compute_p_value(difference: Any, *sources: Source) -> Any:
    """Compute the two-sided p value of the hypothesis that the true difference is 0."""
    error, freedom = compute_standard_error(*sources)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(difference) / error, freedom)
    return np.where(error == 0, np.where(np.asarray(difference) == 0, 1.0, 0.0), p)


def compute_standard_error(*sources: Source) -> tuple[Any, Any]:
    """Compute the standard error and its degrees of freedom from the known sources.

    Both are arrays if the sources' variances are.
    """
    known = [source for source in sources if source.freedom > 0]
    if not known:
        return math.nan, math.nan
    variance = sum(np.asarray(source.variance) for source in known)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = variance**2 / sum(source.variance**2 / source.freedom for source in known)
    least = min(source.freedom for source in known)
    return np.sqrt(variance), np.where(variance == 0, least, freedom)


def resample_miou(
    intersections: NDArray[np.int64], unions: NDArray[np.int64], resamples: int = RESAMPLES
) -> Floats:
    """Compute the mIoU of every run on resamples of the images, (resamples, runs), as fractions.

    ``intersections`` and ``unions`` are pixels (runs, images, C); of images that belong together,
    their sums (``sum_groups``). Every run, and every call with the same number of images, has the
    same resamples. The mean is over the classes whose union is not 0.
    """
    runs, images, classes = unions.shape
    by_image = [
        counts.transpose(1, 0, 2).reshape(images, runs * classes).astype(np.float64)
        for counts in (intersections, unions)
    ]
    parts = []
    for weights in draw_image_weights(images, resamples):
        # Integers below 2^53 are exact in float64, in any order of addition.
        part, whole = ((weights @ counts).reshape(-1, runs, classes) for counts in by_image)
        iou = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
        parts.append(iou.sum(axis=-1) / np.maximum((whole > 0).sum(axis=-1), 1))
    return np.concatenate(parts)


def count_class_pixels(record: Scores) -> NDArray[np.int64]:
    """Return the intersections and unions of every image, (2, images, C)."""
    pixels = np.zeros((2, len(record.images), len(record.classes)), dtype=np.int64)
    for row, entries in enumerate(record.images.values()):
        for index, *both in entries:
            pixels[:, row, index] = both
    return pixels


def sum_groups(pixels: NDArray[np.int64], groups: Sequence[int]) -> NDArray[np.int64]:
    """Sum the pixels (..., images, C) of the images of each group, (..., groups, C).

    ``groups`` has the group of each image, counted from 0.
    """
    sums = np.zeros((*pixels.shape[:-2], max(groups) + 1, pixels.shape[-1]), dtype=np.int64)
    for image, group in enumerate(groups):
        sums[..., group, :] += pixels[..., image, :]
    return sums


def draw_image_weights(images: int, resamples: int) -> Iterator[Floats]:
    """Draw how often each image is in each resample, in parts of (resamples, images)."""
    generator = np.random.RandomState(0)  # unlike Generator, its random streams never change
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, resamples - first)
        drawn = generator.randint(images, size=(rows, images)) + images * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * images)
        yield counts.reshape(rows, images).astype(np.float64)


def can_decide(seeds: int, groups: int) -> bool:
    """Return whether comparisons have verdicts: not with one seed, nor with a few clips alone."""
    return seeds > 1 and groups >= LEAST_GROUPS


def compare(scores: pd.DataFrame, resampled: pd.DataFrame, groups: int) -> pd.DataFrame:
    """Compare every pair of models. ``p_holm`` is ``p_value`` adjusted for the number of pairs.

    ``scores`` are (seeds, models), and ``resampled`` are mean scores on resamples of so many groups
    of images, or single images, (resamples, models). Differences are on the same images. ``model``
    has the higher mean of a pair. The rows begin with the models of the highest means. One seed
    decides nothing: its p values are NaN, and its intervals cover the choice of images alone.
    """
    order = scores.mean().sort_values(ascending=False, kind="stable").index
    higher, lower = np.triu_indices(len(order), 1)
    means = scores[order].mean().to_numpy()
    covariance = np.atleast_2d(np.cov(resampled[order].to_numpy(), rowvar=False))
    variance = covariance.diagonal()
    of_difference = variance[higher] + variance[lower] - 2 * covariance[higher, lower]
    sources = (pool_seed_variance(scores), correct_variance(of_difference.clip(min=0), groups))
    difference = means[higher] - means[lower]
    margin = compute_margin_of_error(*sources)
    p = (
        compute_p_value(difference, *sources)
        if can_decide(len(scores), groups)
        else np.full(len(difference), math.nan)
    )
    return pd.DataFrame(
        {
            "model": order[higher],
            "other": order[lower],
            "difference": difference,
            "ci95_low": difference - margin,
            "ci95_high": difference + margin,
            "p_value": p,
            "p_holm": adjust_p_values(p),
        }
    )


def pool_seed_variance(scores: pd.DataFrame) -> Source:
    """Compute the variance that seeds add to the difference of two models' means.

    It is pooled over all models of ``scores`` (seeds, models): with two or three seeds, that of a
    pair alone is often much too small by chance.
    """
    seeds, models = scores.shape
    if seeds == 1:
        return Source(0.0, 0)
    return Source(2 * float(scores.var().mean()) / seeds, models * (seeds - 1))


def compute_prediction_margin(scores: pd.DataFrame) -> float:
    """Compute half the length of the 95 % prediction interval of one new run.

    The interval lies around the mean of a model's S runs and would hold the score of one more run.
    Its variance is s^2 (1 + 1 / S), with s^2 pooled over all models of ``scores`` (seeds, models).
    NaN for one seed.
    """
    seeds, _ = scores.shape
    of_difference = pool_seed_variance(scores)  # 2 s^2 / S
    variance = of_difference.variance * (seeds + 1) / 2
    return float(compute_margin_of_error(Source(variance, of_difference.freedom)))


def adjust_p_values(p_values: ArrayLike) -> Floats:
    """Adjust p values for multiple tests (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = p_values.argsort()
    factors = np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1)
    return adjusted


def is_significant(p_holm: Any) -> Any:
    """Return whether adjusted p values decide their comparisons; NaN decides nothing."""
    return p_holm < SIGNIFICANT


def rank_models(means: "pd.Series[float]", compared: pd.DataFrame) -> pd.DataFrame:
    """Compute the ``rank`` of each model, 1 for the highest mean, and its interval.

    The interval goes from ``rank_low`` to ``rank_high``. It excludes the ranks that contradict a
    significant comparison (Al Mohamad, Goeman and van Zwet, Biometrics 78, 2022). All intervals
    together have the confidence level of Holm's adjusted comparisons.
    """
    decided = compared[is_significant(compared["p_holm"])]
    above = decided["other"].value_counts().reindex(means.index, fill_value=0)
    below = decided["model"].value_counts().reindex(means.index, fill_value=0)
    rank = means.rank(ascending=False, method="min").astype(int)
    return pd.DataFrame({"rank": rank, "rank_low": 1 + above, "rank_high": len(means) - below})
