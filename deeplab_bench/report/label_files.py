"""The table that compares models of others, known by their label files, with ours."""

import pandas as pd

from deeplab_bench.report import captions, statistics
from deeplab_bench.report.formats import (
    Table,
    format_cells,
    format_changes,
    join_interval,
    mark_none,
    render_formats,
)
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import compute_margin_of_error, correct_variance


def render(results: Results) -> dict[str, str]:
    """Return the table's files by name; an empty dict if there are no models of others."""
    if not results.label_files:
        return {}
    return render_formats(build_comparisons(results), "label_files", results)


def build_comparisons(results: Results) -> Table:
    """Build a row for each model of others and each of ours."""
    data = compare_with_models(results)
    text = format_cells(data)
    text["difference"] = format_changes(data[["difference"]])["difference"]
    text = join_interval(text)
    best = mark_none(data, text.columns)
    title = f"Models of others beside ours on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_label_files(results))


def compare_with_models(results: Results) -> pd.DataFrame:
    """Compare label files with the mean of each model on the same images, in points.

    The interval covers the images and the seeds of our model, whose variance is pooled over all our
    models. One set of label files says nothing about the seeds of its own network.
    """
    ours, groups = results.miou_by_seed, results.group_count
    of_difference = statistics.pool_seed_variance(ours)  # of two means over our seeds
    of_seeds = statistics.Source(of_difference.variance / 2, of_difference.freedom)
    rows = []
    for each in results.label_files:
        for model in ours:
            gap = results.all_resampled[each.name] - results.resampled[model]
            margin = compute_margin_of_error(of_seeds, correct_variance(float(gap.var()), groups))
            difference = 100 * each.metrics.miou - ours[model].mean()
            row = (each.name, model, difference, difference - margin, difference + margin)
            rows.append(row)
    return pd.DataFrame(rows, columns=["model", "other", "difference", "ci95_low", "ci95_high"])
