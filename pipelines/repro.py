"""Command ``repro``: run ``dvc repro`` with a warm process, update README.md, print the table."""

import sys
from typing import Annotated

from deeplab_bench.runtime.pins import can_pin_instructions, list_pins
from deeplab_bench.settings.params import load_params
from pipelines import readme, table
from pipelines.parallel import reproduce
from pipelines.warm import warm_process


def main(*, jobs: Annotated[int, "stages side by side, a GPU each"] = 1) -> int:
    """Run everything that is due and return the exit status of DVC."""
    params = load_params()
    process = params.profile[params.run.profiles[0]].process
    if process.determinism == "portable" and not can_pin_instructions():
        print(
            "warning: this processor has no AVX2, so that determinism portable pins no "
            "instructions: results will differ from those of other machines",
            file=sys.stderr,
        )
    with warm_process(list_pins(process.determinism, process.threads)):
        status = reproduce(jobs)
    if status == 0:
        readme.main()
        table.main()
    return status
