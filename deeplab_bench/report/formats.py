"""Tables and their three formats: CSV for programs, Markdown and LaTeX for readers."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from deeplab_bench.evaluation.measures.boundaries import TRIMAP_WIDTHS
from deeplab_bench.evaluation.measures.context_accuracy import RADIUS_BINS
from deeplab_bench.report import latex
from deeplab_bench.report.captions import Caption, describe_commits
from deeplab_bench.report.marks import Marks, find_marks
from deeplab_bench.report.phrases import join_sentences
from deeplab_bench.report.results import Results
from deeplab_bench.results.records import SIZES

ROOT = "../../../"  # from the folder of the tables
TRIMAPS = {f"trimap_{width}_px": width for width in TRIMAP_WIDTHS}
HEADINGS = {
    "model": "Model",
    "other": "Over",
    "architecture": "Architecture",
    "seeds": "Seeds",
    "hardware": "Hardware",
    "input": "Input (px)",
    "params_m": "Parameters (M)",
    "gflops": "GFLOPs",
    "miou_mean": "mIoU (%)",
    "inference": "Inference",
    "settings": "Settings",
    "gain": "Gain (points)",
    "interval": "95 % interval",
    "interval_over_seeds": "95 % over seeds",
    "rank": "Rank",
    "pixel_accuracy_mean": "Pixel accuracy (%)",
    "boundary_miou": "Boundary IoU (%)",
    "variant": "Variant",
    "as_in": "As in",
    **{f"miou_{size}": f"{size.capitalize()} (%)" for size in SIZES},
    "iteration": "Iteration",
    "gain_mean": "Beyond the network",
    **{trimap: f"Within {width} px (%)" for trimap, width in TRIMAPS.items()},
    **{f"radius_{radius}_px": f"Up to {radius} px (%)" for radius in RADIUS_BINS},
    "latency_p50_ms": "Latency, p50 (ms)",
    "latency_p90_ms": "p90 (ms)",
    "latency_relative": "Latency (reference)",
    "output_stride": "Output stride",
    "output_strides": "Output stride, training/evaluation",
    "images_per_second": "Images/s",
    "batch_size": "Batch",
    "peak_memory_mib": "Peak memory (MiB)",
    "field_px": "Theoretical (px)",
    "field_stride_px": "Stride (px)",
    "field_share": "Seen (%)",
    "effective_before_px": "Effective, before (px)",
    "effective_after_px": "Effective, after (px)",
    "effective_share": "Effective, after (%)",
    "half_before_px": "Half, before (px)",
    "half_after_px": "Half, after (px)",
    "crf_seconds": "CRF (s)",
    "crop": "Crop (px)",
    "precision": "Precision",
    "step_ms": "Step (ms)",
    "step_relative": "Step (reference)",
    "paper": "Paper",
    "row": "Row",
    "published": "Published (%)",
    "published_difference": "Published (points)",
    "difference": "Difference (points)",
    "p_value": "p",
    "p_holm": "p (Holm)",
    "verdict": "Verdict",
    "ordering": "Ordering",
    "reason": "Because of",
    "class": "Class",
}
LEFT_ALIGNED = {"model", "class", "other", "architecture", "hardware", "paper", "row", "inference"}
LEFT_ALIGNED |= {"settings", "verdict", "ordering", "reason", "precision", "variant", "as_in"}
HIGHEST = {"miou_mean", "pixel_accuracy_mean", *(f"miou_{s}" for s in SIZES), "images_per_second"}
LOWEST = {"latency_p50_ms", "latency_p90_ms", "latency_relative", "step_ms", "step_relative"}
DECIMALS = {
    "params_m": 3,
    "gflops": 3,
    "loss": 5,
    "field_px": 0,
    "crf_seconds": 3,
    "p_value": 5,
    "p_holm": 5,
}
# In Markdown and LaTeX, which have fewer digits than CSV.
SHOWN_DECIMALS = DECIMALS | {
    "peak_memory_mib": 0,
    "images_per_second": 1,
    "effective_before_px": 0,
    "effective_after_px": 0,
    "field_share": 1,
    "effective_share": 1,
}
# What ends a cell, is emphasis, code or a link, or begins an HTML tag.
MARKDOWN = re.compile(
    r"[\\`*|]|\[(?=[^\]]*\]\()|<(?=[A-Za-z/!?])|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
)


@dataclass(frozen=True)
class Table:
    """A table: ``data`` for CSV, ``text`` for Markdown and LaTeX, ``bold`` for its bold cells.

    ``classes`` are columns that have the name of a class, whatever else the name means.
    """

    title: str
    data: pd.DataFrame
    text: pd.DataFrame
    bold: pd.DataFrame
    caption: Caption
    classes: tuple[str, ...] = ()

    def list_headings(self, headings: Mapping[str, str]) -> list[str]:
        """List the heading of each column."""
        return [
            column if column in self.classes else headings.get(column, column)
            for column in map(str, self.text)
        ]

    def list_alignments(self) -> list[str]:
        """List the side on which each column is aligned."""
        left = LEFT_ALIGNED - set(self.classes)
        return ["left" if column in left else "right" for column in self.text]


def render_formats(
    table: Table, name: str, results: Results, marks: Marks | None = None
) -> dict[str, str]:
    """Return the table in each format by file name. Marked models have their marks.

    The caption names the commits, which the CSV file does not: it has values alone. ``marks`` are
    those of the models, if they are not given.
    """
    marks = find_marks(results) if marks is None else marks
    named = [name for name in ("model", "other") if name in {*table.text} - {*table.classes}]
    marks = marks.select(name for column in named for name in table.text[column])
    text = table.text.copy()
    for column in named:
        text[column] = [marks.add_to(name) for name in text[column]]
    marked = replace(table, text=text)
    commits = describe_commits(name, results)
    return {
        f"tables/{name}.csv": format_csv(table.data),
        f"tables/{name}.md": format_markdown(marked, marks, commits),
        f"tables/{name}.tex": format_latex(marked, name, results.profile, marks, commits),
    }


def format_cells(data: pd.DataFrame, decimals: Mapping[str, int] = DECIMALS) -> pd.DataFrame:
    """Format values with the ``decimals`` of their column, or two; NaN becomes empty text."""
    text = data.astype(str).where(data.notna(), "")
    for column in data.select_dtypes("float"):
        digits = decimals.get(str(column), 2)
        text[column] = [f"{x:.{digits}f}" if pd.notna(x) else "" for x in data[column]]
    return text


def format_changes(data: pd.DataFrame) -> pd.DataFrame:
    """Format values with their sign; NaN becomes empty text."""
    return data.map(lambda x: f"{x:+.2f}" if pd.notna(x) else "")


def put_in_brackets(text: pd.DataFrame, column: str, low: str, high: str) -> pd.DataFrame:
    """Append the formatted columns ``low`` and ``high`` to ``column``, in brackets."""
    ends = (" [" + text[low] + ", " + text[high] + "]").where(text[low] != "", "")
    return text.assign(**{column: text[column] + ends}).drop(columns=[low, high])


def format_interval(text: pd.DataFrame) -> "pd.Series[str]":
    """Join the formatted ends of the interval; the text is empty where they are."""
    return (text["ci95_low"] + " to " + text["ci95_high"]).where(text["ci95_low"] != "", "")


def join_interval(text: pd.DataFrame, name: str = "interval") -> pd.DataFrame:
    """Join the formatted ends of the interval into one column of this name."""
    joined = text.assign(ci95_low=format_interval(text))
    return joined.drop(columns="ci95_high").rename(columns={"ci95_low": name})


def merge_interval(text: pd.DataFrame) -> pd.DataFrame:
    """Merge mean and deviation into one formatted column, and the interval's ends into another."""
    spread = (" ± " + text["miou_std"]).where(text["miou_std"] != "", "")
    shown = text.assign(miou_mean=text["miou_mean"] + spread, miou_std=format_interval(text))
    return shown.drop(columns=["ci95_low", "ci95_high"]).rename(columns={"miou_std": "interval"})


def find_best(
    data: pd.DataFrame, shown: Collection[str], highest: Collection[str] = HIGHEST
) -> pd.DataFrame:
    """Find the best cells of each column, compared as printed; none if there is one row."""
    best = mark_none(data, shown)
    for column in shown if len(data) > 1 else ():
        if column in highest or column in LOWEST:
            values = data[column].round(SHOWN_DECIMALS.get(column, 2))
            best[column] = values == (values.max() if column in highest else values.min())
    return best


def mark_none(data: pd.DataFrame, shown: Collection[str]) -> pd.DataFrame:
    """Mark no cell as the best."""
    return pd.DataFrame(False, index=data.index, columns=pd.Index(shown))


def format_csv(data: pd.DataFrame) -> str:
    return format_cells(data).to_csv(index=False, lineterminator="\n")


def format_markdown(table: Table, marks: Marks | None = None, commits: str = "") -> str:
    """Format the table with its caption; if models are marked, an alert comes first."""
    cells = table.text.map(escape_markdown)
    cells = cells.mask(table.bold, "**" + cells + "**")
    cells.columns = pd.Index(map(escape_markdown, table.list_headings(HEADINGS)))
    sides = table.list_alignments()
    lines = cells.to_markdown(index=False, disable_numparse=True, colalign=sides)
    reasons = marks.list_reasons() if marks else []
    blocks = [lines, table.caption.add(commits, *reasons).format_markdown(ROOT)]
    if marks:
        blocks.insert(0, marks.format_alert())
    return "\n\n".join(blocks) + "\n"


def escape_markdown(text: str) -> str:
    """Escape what Markdown would not show as it is."""
    return MARKDOWN.sub(r"\\\g<0>", text)


def format_latex(
    table: Table, name: str, profile: str, marks: Marks | None = None, commits: str = ""
) -> str:
    """Format the columns of the table for which a page is wide enough, see ``latex``.

    The caption has two sentences: what the table shows, and the commits. All else is in the note.
    The title is for the list of tables alone: the caption says the same.
    """
    first, others = table.caption.on_paper
    text, bold, names = latex.select_columns(name, table.text, table.bold, table.classes)
    kept = replace(table, text=text, bold=bold, classes=names)
    return latex.format_table(
        text,
        bold,
        kept.list_headings(HEADINGS | latex.SHORT),
        kept.list_alignments(),
        table.title,
        join_sentences(f"{first.removesuffix('.')}; profile {profile}.", commits),
        f"tab:{profile}-{name}",
        join_sentences(others, *(marks.list_reasons() if marks else [])),
        size="scriptsize" if name in latex.SMALLER else "footnotesize",
        breaks_over_pages=name.endswith("comparisons"),
    )
