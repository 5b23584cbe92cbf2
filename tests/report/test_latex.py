"""Tests that tables compile in the class ``article`` and fit its text, where LaTeX is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from miniature import ROOT

from deeplab_bench.report import latex
from deeplab_bench.report.captions import Caption
from deeplab_bench.report.formats import Table, format_latex

PDFLATEX = shutil.which("pdflatex")
PAGE = r"""\documentclass[%s]{article}
\usepackage{booktabs,longtable}
\begin{document}
%s
\end{document}
"""
COMMITTED = sorted(path for path in (ROOT / "results").glob("*/tables/*.tex"))


def build(data: pd.DataFrame) -> Table:
    bold = pd.DataFrame(False, data.index, data.columns)
    return Table("A title", data, data, bold, Caption("n = 1, -2 to 3 points."))


def compile_text(text: str, folder: Path, options: str = "") -> str:
    """Compile tables twice, as references need it, and return the log; errors fail."""
    if PDFLATEX is None:
        pytest.skip("LaTeX is not installed")
    (folder / "page.tex").write_text(PAGE % (options, text), encoding="utf-8")
    command = [PDFLATEX, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    return (folder / "page.log").read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("profile", sorted({path.parts[-3] for path in COMMITTED}))
def test_committed_tables_fit(profile: str, tmp_path: Path) -> None:
    paths = [path for path in COMMITTED if path.parts[-3] == profile]
    log = compile_text("\\clearpage".join(path.read_text("utf-8") for path in paths), tmp_path)
    assert re.findall(r"Overfull.*", log) == []
    assert "undefined" not in log


def test_many_classes_are_rows(tmp_path: Path) -> None:
    classes = [f"class_{index}" for index in range(21)]
    models = ["fcn ‡", "encoder_decoder §", "image_pyramid", "deeplabv2", "aspp", "psp"]
    data = pd.DataFrame([["12.34"] * 21] * 6, columns=classes)
    data.insert(0, "model", models)
    table = build(data)
    bold = table.bold.copy()
    bold.loc[1, "class_3"] = True
    table = Table(table.title, data, data, bold, table.caption, tuple(classes))
    text = format_latex(table, "per_class", "quick")
    rows = [line for line in text.splitlines() if line.startswith(r"class\_")]
    assert len(rows) == 21
    assert rows[3].count("&") == 6
    assert rows[3].split(" & ")[2] == r"\textbf{12.34}"
    assert sum("textbf" in row for row in rows) == 1
    assert re.findall(r"Overfull.*", compile_text(text, tmp_path)) == []


def test_wide_tables_span_two_columns(tmp_path: Path) -> None:
    wide = build(pd.DataFrame([["12.34 ± 0.56"] * 6], columns=list("abcdef")))
    text = format_latex(wide, "x", "quick")
    for options in ("", "twocolumn"):
        assert re.findall(r"Overfull.*", compile_text(text, tmp_path, options)) == []


def test_special_characters_and_marks_compile(tmp_path: Path) -> None:
    names = [
        "< 0.1",
        "50 %",
        "a_b",
        "R&D",
        "C#",
        "$x$",
        "{s}",
        "~",
        "^",
        "back\\slash",
        "† ◊ § ‖ ¶ ‡",
        "≤ √ → ±",
    ]
    text = format_latex(build(pd.DataFrame({"model": names, "x": names})), "x", "quick")
    compile_text(text, tmp_path)


def test_a_minus_is_no_hyphen() -> None:
    assert latex.escape("-1.97 to +1.81") == "$-$1.97 to +1.81"
    assert latex.escape("2026-11-29, x-ray, a 4-2") == "2026-11-29, x-ray, a 4-2"


def test_long_tables_break_over_pages(tmp_path: Path) -> None:
    data = pd.DataFrame({"model": ["aspp"] * 120, "other": ["fcn"] * 120})
    text = format_latex(build(data), "comparisons", "quick")
    assert re.search(r"Output written on page.pdf \([3-9] pages", compile_text(text, tmp_path))
