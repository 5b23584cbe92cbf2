"""Command ``repro``: run ``dvc repro`` with a warm process, update README.md, print the table."""

from typing import Annotated

from pipelines import readme, table
from pipelines.parallel import reproduce
from pipelines.warm import warm_process


def main(*, jobs: Annotated[int, "stages side by side, a GPU each"] = 1) -> int:
    """Run everything that is due and return the exit status of DVC."""
    with warm_process():
        status = reproduce(jobs)
    if status == 0:
        readme.main()
        table.main()
    return status
