"""Command ``compare``: two versions of the committed results, row by row."""

from pathlib import Path
from typing import Annotated

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from deeplab_bench.report.formats import HEADINGS, escape_markdown
from deeplab_bench.verification.versions import (
    VersionError,
    compare_further,
    compare_versions,
    list_profiles,
    number_causes,
    read_version,
)
from deeplab_bench.writing import write_bytes

WIDTH = 120  # of what is not printed in a terminal
SUFFIXES = (".md", ".html")


def main(
    before: Annotated[str, "the earlier version: a tag, a branch or a commit"],
    after: Annotated[str, "the later version, such as `HEAD`"],
    *,
    profile: Annotated[str, "default: all profiles that both versions have"] = "",
    out: Annotated[str, "a file with further tables, too: Markdown (.md) or a page (.html)"] = "",
) -> None:
    """
    Raises:
        GitError: git is not installed, or this is no repository.
        VersionError: a version is not there or has no results of the profile, or the file's suffix
            is not known.
    """
    if out and Path(out).suffix not in SUFFIXES:
        raise VersionError(f"--out {out}: give a path that ends in {' or '.join(SUFFIXES)}")
    common = [name for name in list_profiles(before) if name in list_profiles(after)]
    chosen = [profile] if profile else common
    if not chosen:
        raise VersionError(f"{before} and {after} have results of no common profile")
    console, texts = Console(highlight=False, markup=False), []
    if not console.is_terminal:
        console.width = WIDTH
    for name in chosen:
        versions = read_version(before, name), read_version(after, name)
        rows, causes = number_causes(compare_versions(*versions))
        further = compare_further(*versions)
        title = f"{name}: {before} to {after}"
        print_rows(console, title, rows, causes, list(further))
        texts.append(format_markdown(title, rows, causes, further))
    if out:
        text = "\n\n".join(texts) + "\n"
        if Path(out).suffix == ".html":
            text = render_page(f"deeplab-bench: {before} to {after}", text)
        write_bytes(Path(out), text.encode())


def print_rows(
    console: Console, title: str, rows: pd.DataFrame, causes: list[str], further: list[str]
) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in rows:
        table.add_column(str(column), justify="left" if column in ("Model", "Verdict") else "right")
    for row in rows.itertuples(index=False):
        table.add_row(*row)
    console.print(table)
    for number, cause in enumerate(causes, start=1):
        console.print(f"Cause {number}: {cause}")
    if further:
        console.print(f"Values of other tables changed, too (--out): {', '.join(further)}")


def format_markdown(
    title: str, rows: pd.DataFrame, causes: list[str], further: dict[str, pd.DataFrame]
) -> str:
    blocks = [f"## {title}", format_table(rows)]
    if causes:
        listed = (f"{number}. {escape_markdown(c)}" for number, c in enumerate(causes, start=1))
        blocks += ["Causes:", "\n".join(listed)]
    for name, table in further.items():
        blocks += [f"### {name}", format_table(table.rename(columns=HEADINGS))]
    return "\n\n".join(blocks)


def format_table(table: pd.DataFrame) -> str:
    cells = table.map(escape_markdown).rename(columns=escape_markdown)
    return cells.to_markdown(index=False, disable_numparse=True)


def render_page(title: str, text: str) -> str:
    from deeplab_bench.report.web.page import ENVIRONMENT, convert  # imports plotly

    template = ENVIRONMENT.get_template("page.html.jinja")
    return template.render(title=title, summary=convert(text), sections=[], plotly="")
