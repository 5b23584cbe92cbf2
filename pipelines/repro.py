"""Command ``repro``: run ``dvc repro`` with a warm process, update README.md, print the table."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Annotated

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.pins import can_pin_instructions, list_pins
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.process import Process
from pipelines import readme, table
from pipelines.parallel import list_gpus, reproduce
from pipelines.warm import warm_process


def main(
    *,
    jobs: Annotated[int, "runs side by side; default: 1 on a GPU, as many as fit on a CPU"] = 0,
) -> int:
    """Run everything that is due and return 0 if all went well."""
    if jobs < 0:
        raise UserError(f"--jobs {jobs} is negative: give the number of runs side by side")
    started = time.monotonic()
    params = load_params()
    processes = [params.profile[name].process for name in params.run.profiles]
    if processes[0].determinism == "portable" and not can_pin_instructions():
        print(
            "warning: this processor has no AVX2, so that determinism portable pins no "
            "instructions: results will differ from those of other machines",
            file=sys.stderr,
        )
    with warm_process(list_pins(processes[0].determinism, processes[0].threads)):
        status = reproduce(jobs or count_default_jobs(processes))
    if status == 0:
        readme.main()
        table.main()
        print(f"\nrepro took {format_duration(time.monotonic() - started)}")
    return status


def count_default_jobs(processes: Sequence[Process]) -> int:
    """Count the runs at a time: 1 with a GPU, otherwise as many as have cores for their threads."""
    if list_gpus():
        return 1
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // max(process.threads or cores for process in processes))


def format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"
