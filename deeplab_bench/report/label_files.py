"""Tables of other people's networks, whose label files were scored as our own predictions."""

import pandas as pd

from deeplab_bench.report import captions, statistics
from deeplab_bench.report.formats import (
    Table,
    find_best,
    format_cells,
    format_changes,
    join_interval,
    mark_none,
    render_formats,
)
from deeplab_bench.report.marks import find_label_file_marks
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import compute_margin_of_error, correct_variance

SHOWN = ["miou_small", "miou_medium", "miou_large", "boundary_miou"]


def render(results: Results) -> dict[str, str]:
    """Return the tables' files by name; an empty dict if no label files were scored."""
    if not results.label_files:
        return {}
    tables = {
        "label_files": build_label_files(results),
        "label_files_comparisons": build_comparisons(results),
        "label_files_per_class": build_per_class(results),
        "label_files_audit": build_audit(results),
    }
    files: dict[str, str] = {}
    marks = find_label_file_marks(results)
    for name, table in tables.items():
        files |= render_formats(table, name, results, marks)
    return files


def build_label_files(results: Results) -> Table:
    scores = results.label_file_scores()
    images = statistics.estimate_over_images(results.resampled_label_files, results.group_count)
    rows = [
        statistics.estimate([miou], images[name])
        for name, miou in scores[["model", "miou"]].itertuples(index=False)
    ]
    data = pd.DataFrame(
        {
            "model": scores["model"],
            "miou_mean": scores["miou"],
            "ci95_low": [row.ci95_low for row in rows],
            "ci95_high": [row.ci95_high for row in rows],
            "pixel_accuracy_mean": scores["pixel_accuracy"],
            **scores[SHOWN],
        }
    )
    text = format_cells(data)
    text = join_interval(text)
    best = find_best(data, text.columns)
    title = f"Label files of other networks on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_label_files(results))


def build_comparisons(results: Results) -> Table:
    """Build a row for each set of label files and each model of ours."""
    data = compare_with_models(results)
    text = format_cells(data)
    text["difference"] = format_changes(data[["difference"]])["difference"]
    text = join_interval(text)
    best = mark_none(data, text.columns)
    title = f"Label files of other networks beside ours on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_label_file_comparisons(results))


def compare_with_models(results: Results) -> pd.DataFrame:
    """Compare label files with the mean of each model on the same images, in points.

    The interval covers the images and the seeds of our model, whose variance is pooled over all our
    models. One set of label files says nothing about the seeds of its own network.
    """
    ours, groups = results.miou_by_seed, results.group_count
    of_difference = statistics.pool_seed_variance(ours)  # of two means over our seeds
    of_seeds = statistics.Source(of_difference.variance / 2, of_difference.freedom)
    rows = []
    for name, miou in results.label_file_scores()[["model", "miou"]].itertuples(index=False):
        for model in ours:
            gap = results.resampled_label_files[name] - results.resampled[model]
            margin = compute_margin_of_error(of_seeds, correct_variance(float(gap.var()), groups))
            difference = miou - ours[model].mean()
            rows.append((name, model, difference, difference - margin, difference + margin))
    return pd.DataFrame(rows, columns=["model", "other", "difference", "ci95_low", "ci95_high"])


def build_per_class(results: Results) -> Table:
    names = {f"iou_{name}": name for name in results.runs[0].classes}
    data = results.label_file_scores()[["model", *names]].rename(columns=names)
    best = find_best(data, data.columns, highest=list(names.values()))
    title = f"IoU by class of label files on the profile {results.profile}"
    caption = captions.describe_label_classes(results)
    return Table(title, data, format_cells(data), best, caption, results.runs[0].classes)


def build_audit(results: Results) -> Table:
    """Build a row for each set of label files and scoring variant."""
    rows = [
        (each.name, variant, miou, each.metrics.miou)
        for each in results.label_files
        for variant, miou in {"protocol": each.metrics.miou, **each.variants}.items()
    ]
    data = pd.DataFrame(rows, columns=["model", "variant", "miou_mean", "gain"])
    data["miou_mean"] = 100 * data["miou_mean"].astype(float)
    data["gain"] = data["miou_mean"] - 100 * data["gain"]
    text = format_cells(data)
    gain = format_changes(data[["gain"]])["gain"].where(data["variant"] != "protocol", "")
    text["gain"] = gain.where(data["miou_mean"].notna(), "not applicable")
    best = mark_none(data, text.columns)
    title = f"Scoring variants of label files on the profile {results.profile}"
    return Table(title, data, text, best, captions.describe_label_audit(results))
