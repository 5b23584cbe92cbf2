"""Tables in LaTeX. They need the package booktabs, and fit the text of the class ``article``.

Under ``[twocolumn]`` a ``table*`` is as wide as both columns; in one column it is a ``table``.
"""

import re
from collections.abc import Sequence

import pandas as pd

# Columns for which the page is too narrow, by table. CSV and Markdown have them.
LEFT_OUT = {
    "accuracy": {"architecture", "seeds", "gflops", "miou_small", "miou_medium", "miou_large"},
    "boundaries": {"interval", "trimap_2_px", "trimap_10_px"},
    "comparisons": {"p_value"},
    "crf": {"seeds", "interval_over_seeds", *(f"trimap_{width}_px" for width in (2, 5, 10, 20))},
    "receptive_field": {"architecture", "field_stride_px", "effective_share"},
    "speed": {"input", "params_m", "latency_p90_ms", "batch_size", "images_per_second"},
    "training_speed": {"precision", "images_per_second", "crop"},
}
SHORT = {  # headings
    "hardware": "Device",
    "params_m": "Par. (M)",
    "output_strides": "Output stride",
    "iteration": "It.",
    "gain_mean": "Gain (points)",
    "field_px": "Theory (px)",
    "latency_p50_ms": "p50 (ms)",
    "latency_relative": "Latency (ref.)",
    "step_relative": "Step (ref.)",
    "peak_memory_mib": "Memory (MiB)",
    "published": "Publ. (%)",
    "published_difference": "Publ. (points)",
    "difference": "Diff. (points)",
}
SMALLER = {"paper"}  # tables in the next smaller size of letters
LONGEST_TEXT = 17  # characters; longer cells of text are broken into lines
MOST_CLASSES = 8  # as columns; with more they are rows
LINE = "7em"  # the width of a cell that is broken into lines
MINIPAGE = r"\begin{minipage}{\linewidth}"
CHARACTERS = str.maketrans(
    {character: f"\\{character}" for character in "_%&#${}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$"}  # in the default encoding they are other letters
    | {
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "√": r"$\surd$",
        "◊": r"$\diamond$",
        "‖": r"$\parallel$",
        "→": r"$\to$",
    }
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
MINUS = re.compile(r"(?<![\w.])-(?=\d)")
WORD = re.compile(r"[^ _]*[ _]?")


def select_columns(
    name: str, text: pd.DataFrame, bold: pd.DataFrame, classes: tuple[str, ...]
) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Return the text and the bold cells of a table as far as the page is wide enough.

    The last value are the columns that have the name of a class or of a model.
    """
    if classes and len(text.columns) > max(MOST_CLASSES, len(text)):
        turned = exchange_axes(text, text["model"]).reset_index()
        marked = exchange_axes(bold, text["model"]).reset_index().assign(**{"class": False})
        return turned, marked, tuple(text["model"])
    kept = [column for column in text if column not in LEFT_OUT.get(name, ())]
    return text[kept], bold[kept], classes


def exchange_axes(frame: pd.DataFrame, names: "pd.Series[str]") -> pd.DataFrame:
    """Make the classes the rows of a table, and the models its columns."""
    turned = frame.drop(columns="model").T.set_axis(names, axis="columns")
    return turned.rename_axis(index="class", columns=None)


def format_table(
    cells: pd.DataFrame,
    bold: pd.DataFrame,
    headings: Sequence[str],
    alignments: Sequence[str],
    title: str,
    caption: str,
    label: str,
    note: str,
    size: str = "footnotesize",
    breaks_over_pages: bool = False,
) -> str:
    """Format a float with a caption and a note below, or a ``longtable``.

    The list of tables has the title alone. The note may be empty.
    """
    sides = [side[0] for side in alignments]
    body = cells.map(escape).mask(bold.to_numpy(), r"\textbf{" + cells.map(escape) + "}")
    for column, side in zip(cells, sides, strict=True):
        if side == "l":
            body[column] = cells[column].map(format_text)
    heads = [
        format_heading(heading, side, max(map(len, cells.iloc[:, index]), default=0))
        for index, (heading, side) in enumerate(zip(headings, sides, strict=True))
    ]
    head = " & ".join(heads) + r" \\"
    rows = [" & ".join(row) + r" \\" for row in body.to_numpy().tolist()]
    named = f"\\caption[{{{escape(title)}}}]{{{escape(caption)}}}\\label{{{label}}}"
    small = f"\\{size}\\setlength{{\\tabcolsep}}{{2.5pt}}"
    if breaks_over_pages:
        lines = [
            f"% \\usepackage{{booktabs,longtable}}\n{{{small}",
            f"\\begin{{longtable}}{{{''.join(sides)}}}\n{named}\\\\\n\\toprule\n{head}\n\\midrule",
            f"\\endfirsthead\n\\toprule\n{head}\n\\midrule\n\\endhead",
            "\\bottomrule\n\\endfoot",
            *rows,
            "\\end{longtable}",
            *([f"\\noindent {escape(note)}\\par"] if note else []),
            "}",
        ]
    else:
        lines = [
            f"% \\usepackage{{booktabs}}\n\\begin{{table*}}\n\\centering{small}\n{named}",
            f"\\begin{{tabular}}{{{''.join(sides)}}}\n\\toprule\n{head}\n\\midrule",
            *rows,
            "\\bottomrule\n\\end{tabular}",
            *([f"\\par\\smallskip\n{MINIPAGE}{escape(note)}\\end{{minipage}}"] if note else []),
            "\\end{table*}",
        ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    return MINUS.sub("$-$", text.translate(CHARACTERS))


def format_text(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return escape(text)
    broken = escape(text).replace(r"\_", r"\_\allowbreak ")
    return f"\\parbox[t]{{{LINE}}}{{\\raggedright {broken}\\strut}}"


def format_heading(heading: str, side: str, width: int) -> str:
    """Break a heading into lines that are about as wide as the cells below it."""
    words = [word for word in WORD.findall(heading) if word]
    limit = max(min(width, LONGEST_TEXT), *(len(word.strip()) for word in words))
    lines = [""]
    for word in words:
        if len((lines[-1] + word).strip()) > limit:
            lines.append("")
        lines[-1] += word
    if len(lines) == 1:
        return escape(heading)
    inner = r"\\".join(escape(line.strip()) for line in lines)
    return f"\\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{inner}\\end{{tabular}}"
