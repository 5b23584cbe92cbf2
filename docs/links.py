"""Hooks of mkdocs: paths in place of links to files outside of docs/; a page of the notebook."""

import json
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([^)]+)\)")
NOTEBOOK, PAGE = "lecture.ipynb", "lecture.md"


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Add a page with the text and the code of the notebook."""
    notebook = files.get_file_from_path(NOTEBOOK)
    assert notebook is not None
    cells = json.loads(notebook.content_string)["cells"]
    content = "\n\n".join(map(format_cell, cells))
    files.append(File.generated(config, PAGE, content=content))
    return files


def format_cell(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"])
    return text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```"


def on_page_markdown(markdown: str, **_: Any) -> str:
    return OUTSIDE.sub(r"`\1`", markdown).replace(f"({NOTEBOOK})", f"({PAGE})")
