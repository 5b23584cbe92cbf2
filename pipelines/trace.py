"""Command ``trace``: print where a number of a table comes from, and check every link."""

from pathlib import Path
from typing import Annotated

from deeplab_bench.report.trace import trace
from deeplab_bench.settings.loading import load_params


def main(
    table: Annotated[Path, "results/<profile>/tables/<table>.csv"],
    row: Annotated[str, "the row's model; further names of the row after a /: `psp/cpu/16`"],
    column: Annotated[str, "the column"],
) -> int:
    """Return 1 if a link of the chain is broken.

    Raises:
        TraceError: there is no such table, row or column.
    """
    found = trace(load_params(), table, row, column)
    print(found.format(), end="")
    return 1 if found.broken else 0
