"""Means, intervals and curves by model, for tables and figures."""

from collections.abc import Hashable, Mapping

import numpy as np
import pandas as pd

from deeplab_bench.report import statistics
from deeplab_bench.report.formats import TRIMAPS
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import Source

NEAR_BOUNDARIES = [*TRIMAPS, "boundary_miou"]


def summarise(
    scores: pd.DataFrame,
    column: str,
    by: str | list[str] = "model",
    over_images: Mapping[Hashable, Source] | None = None,
) -> pd.DataFrame:
    """Compute ``mean``, ``std`` and the 95 % interval of a column for each group of ``by``.

    The interval is over seeds. It is also over images if ``over_images`` has the group's variance
    over resampled images.
    """
    images = over_images or {}
    seeds = scores.groupby(by, sort=False)[column]
    rows = [
        statistics.estimate(group.dropna(), *([images[name]] if name in images else []))
        for name, group in seeds
    ]
    columns = ["mean", "std", "ci95_low", "ci95_high"]
    return pd.DataFrame(rows, index=seeds.size().index, columns=columns)


def summarise_miou(results: Results) -> pd.DataFrame:
    """Compute the mean mIoU of each model in percent, with its interval over seeds and images."""
    return _summarise_miou(results, results.scores(), results.resampled)


def summarise_all_miou(results: Results) -> pd.DataFrame:
    """Compute the same rows, and one for each model of others, whose interval is over images."""
    return _summarise_miou(results, results.all_scores(), results.all_resampled)


def _summarise_miou(
    results: Results, scores: pd.DataFrame, resampled: pd.DataFrame
) -> pd.DataFrame:
    over_images = statistics.estimate_over_images(resampled, results.group_count)
    return summarise(scores, "miou", over_images=over_images)


def order_by_miou(scores: pd.DataFrame) -> list[str]:
    """Return the models from the lowest to the highest mean mIoU."""
    return list(summarise(scores, "miou").sort_values("mean", kind="stable").index)


def average_classes(results: Results, scores: pd.DataFrame) -> pd.DataFrame:
    """Average the IoU in percent (model, class); NaN for a class that has no IoU in any run."""
    names = {f"iou_{name}": name for name in results.runs[0].classes}
    return scores.groupby("model", sort=False)[list(names)].mean().rename(columns=names)


def average_near_boundaries(scores: pd.DataFrame) -> pd.DataFrame:
    """Average mIoU within each width, and boundary IoU, by model: percent, mean over seeds."""
    return scores.groupby("model", sort=False)[NEAR_BOUNDARIES].mean()


def collect_losses(results: Results) -> pd.DataFrame:
    """Return a row for each logged loss: ``model``, ``seed``, ``iteration``, ``loss``."""
    parts = [
        pd.DataFrame(
            {
                "model": run.model,
                "seed": run.seed,
                "iteration": run.training.iteration,
                "loss": run.training.loss,
            }
        )
        for run in results.runs
    ]
    return pd.concat([part.astype({"loss": float}) for part in parts], ignore_index=True)


def collect_validation(results: Results) -> pd.DataFrame:
    """Return a row for each point of a validation curve: as the losses, and ``miou`` in percent."""
    parts = [
        pd.DataFrame(
            {
                "model": curve.model,
                "seed": curve.seed,
                "iteration": curve.iteration,
                "loss": curve.loss,
                "miou": curve.miou,
            }
        ).astype({"loss": float, "miou": float})
        for curve in results.curves
    ]
    return pd.concat(parts, ignore_index=True).assign(miou=lambda points: 100 * points["miou"])


def summarise_curves(points: pd.DataFrame, column: str) -> pd.DataFrame:
    """Compute ``mean``, ``min`` and ``max`` over the seeds, by model and iteration."""
    return points.groupby(["model", "iteration"], sort=False)[column].agg(["mean", "min", "max"])


def chain_curves(bands: pd.DataFrame) -> pd.DataFrame:
    """Put the curves of all models into one, in which there is no line between two of them."""
    ends = bands.groupby("model", sort=False).tail(1) * np.nan
    return pd.concat([bands, ends]).reset_index().sort_values("model", kind="stable")


def collect_fits(results: Results) -> dict[str, str]:
    """Describe the mean mIoU on training and validation images at the end, by model."""
    found = {}
    for model in results.models:
        runs = [run for run in results.runs if run.model == model]
        val = np.mean([100 * run.metrics.miou for run in runs])
        trained = [run.training_images.miou for run in runs if run.training_images]
        fits = [100 * miou for miou in trained if miou is not None]
        lines = [f"training {np.mean(fits):.1f} %"] if fits else []
        found[model] = "\n".join(["mIoU at the end", *lines, f"validation {val:.1f} %"])
    return found
