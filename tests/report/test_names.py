"""Tests of names that Markdown, LaTeX, CSV or the figures treat specially."""

import re
from io import StringIO

import matplotlib.style
import pandas as pd
import pytest

from deeplab_bench.drawing import STYLE, encode, label_classes, make_figure
from deeplab_bench.report.captions import Caption
from deeplab_bench.report.formats import (
    Table,
    escape_markdown,
    format_csv,
    format_latex,
    format_markdown,
)

NAMES = [
    *("build|ing", "a*b*c", "`code`", "<b>bold</b>", "[x](http://y)", "back\\slash", "_under_"),
    *("R&D", "50 %", "C#", "$x^2$", "{set}", "~tilde", 'a "quote", comma', "- yes: no", "über"),
]


def build_table() -> Table:
    data = pd.DataFrame({"model": NAMES, "reason": NAMES[::-1]})
    caption = Caption("n = 1.", ())
    return Table("Names", data, data, pd.DataFrame(False, data.index, data.columns), caption)


def test_markdown_keeps_its_cells() -> None:
    markdown = format_markdown(build_table())
    rows = [line for line in markdown.splitlines() if line.startswith("|")][2:]
    cells = [re.split(r"(?<!\\)\|", row)[1:-1] for row in rows]
    assert [len(row) for row in cells] == [2] * len(NAMES)
    shown = [re.sub(r"\\([\\`*|\[<_])", r"\1", first.strip()) for first, _ in cells]
    assert shown == NAMES


@pytest.mark.parametrize(
    "text", ["image_pyramid", "43.2 [41.0, 45.1]", "< 0.001", "a → b", "2 ± 1"]
)
def test_ordinary_text_is_not_escaped(text: str) -> None:
    assert escape_markdown(text) == text


def test_csv_keeps_its_cells() -> None:
    found = pd.read_csv(StringIO(format_csv(build_table().data)))
    assert found["model"].tolist() == NAMES


def test_latex_has_no_bare_special_character() -> None:
    body = (
        format_latex(build_table(), "names", "quick").split(r"\midrule")[1].split(r"\bottomrule")[0]
    )
    rows = body.strip().splitlines()
    assert len(rows) == len(NAMES)
    for row in rows:
        cells = re.split(r"(?<!\\)&", row.removesuffix(r"\\").strip())
        assert len(cells) == 2
        for cell in cells:
            plain = re.sub(r"\\text\w+\{\}|\\[_%&#${}]|\$[<>|]\$", "", cell)
            assert not re.search(r"[\\_%&#${}~^]", plain), cell


def test_figures_show_names_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    """Check that dollars are no formula, and that no glyph is missing."""
    with matplotlib.style.context(STYLE, after_reset=True):
        names = label_classes(["$x", "a$ $\\frac$", "über", "дом", "図形"])
        assert names == ["$x", "a$ $\\frac$", "über", "дом", "class 4"]
        figure = make_figure(2, 1)
        figure.subplots().set_title(" ".join(names))
        assert encode(figure, "png").startswith(b"\x89PNG")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
