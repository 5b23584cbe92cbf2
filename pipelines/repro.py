"""Command ``repro``: run ``dvc repro`` with a warm process, update README.md, print the table."""

import os
import time
from typing import Annotated

from deeplab_bench.errors import UserError
from deeplab_bench.settings.params import load_params
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
    with warm_process():
        status = reproduce(jobs or count_default_jobs())
    if status == 0:
        readme.main()
        table.main()
        print(f"\nrepro took {format_duration(time.monotonic() - started)}")
    return status


def count_default_jobs() -> int:
    """Count the runs at a time: 1 with a GPU, otherwise as many as have cores for their threads."""
    if list_gpus():
        return 1
    params = load_params()
    cores = len(os.sched_getaffinity(0))
    threads = [params.profile[name].threads or cores for name in params.run.profiles]
    return max(1, cores // max(threads))


def format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"
