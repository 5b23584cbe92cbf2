"""Every two models of a profile, and whether the higher is so beyond seeds and images."""

import pandas as pd

from deeplab_bench.report import captions as notes
from deeplab_bench.report.results import Results
from deeplab_bench.report.statistics import SIGNIFICANT
from deeplab_bench.report.tables import Table, files_of, formatted, interval_text

SMALLEST_P = 0.0001


def render(results: Results) -> dict[str, str]:
    """The files of the table ``comparisons``, none of a single model."""
    if len(results.models) == 1:
        return {}
    return files_of(comparisons(results), "comparisons", results)


def comparisons(results: Results) -> Table:
    data = results.compared.copy()
    few = " (one seed)" if len(results.seeds) == 1 else ""
    data["verdict"] = [f"{verdict(p)}{few}" for p in data["p_holm"]]
    text = formatted(data)
    text["ci95_low"] = interval_text(text)
    text = text.drop(columns="ci95_high").rename(columns={"ci95_low": "interval"})
    for column in ("p_value", "p_holm"):
        text[column] = [p_text(p) for p in data[column]]
    title = f"Differences of mIoU on the profile {results.profile}"
    best = pd.DataFrame(False, data.index, text.columns)
    return Table(title, data, text, best, notes.comparisons(results))


def verdict(p_holm: float) -> str:
    """Of the first model over the other."""
    return "higher" if p_holm < SIGNIFICANT else "undecided"


def p_text(p: float) -> str:
    if pd.isna(p):
        return ""
    return f"< {SMALLEST_P}" if p < SMALLEST_P else f"{p:.4f}"
