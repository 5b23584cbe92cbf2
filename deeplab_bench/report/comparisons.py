"""The table that compares all pairs of models: difference of mIoU, interval, p, verdict."""

import pandas as pd

from deeplab_bench.report import captions
from deeplab_bench.report.formats import (
    Table,
    format_cells,
    join_interval,
    mark_none,
    render_formats,
)
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import is_significant

SMALLEST_P = 0.001


def render(results: Results) -> dict[str, str]:
    """Return the table's files by name; an empty dict for a single model."""
    if len(results.models) == 1:
        return {}
    return render_formats(build_comparisons(results), "comparisons", results)


def build_comparisons(results: Results) -> Table:
    data = results.compared.copy()
    data["verdict"] = [results.undecided_because or decide(p) for p in data["p_holm"]]
    text = format_cells(data)
    text = join_interval(text)
    for column in ("p_value", "p_holm"):
        text[column] = [format_p(p) for p in data[column]]
    title = f"Differences of mIoU on the profile {results.profile}"
    best = mark_none(data, text.columns)
    return Table(title, data, text, best, captions.describe_comparisons(results))


def decide(p_holm: float) -> str:
    """Decide whether the first model is higher than the other."""
    return "higher" if is_significant(p_holm) else "undecided"


def format_p(p: float) -> str:
    if pd.isna(p):
        return ""
    return f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.3f}"
