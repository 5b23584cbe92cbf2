"""Command ``repro``: run all that is due, here or on a cluster, and update README.md."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Never

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.pins import can_pin_instructions, list_pins
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.process import Process
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.engine import Engine
from pipelines.sweep.local import LocalEngine, list_gpus
from pipelines.sweep.node import digest_software
from pipelines.sweep.tasks import open_tasks
from pipelines.warm import warm_process

AUTO, SLURM = "auto", "slurm"


def main(
    *,
    jobs: Annotated[int, "runs side by side; default: 1 on a GPU, as many as fit on a CPU"] = 0,
    cluster: Annotated[
        str, f"{AUTO}: Ray on this machine; {SLURM}; or the address of a Ray cluster"
    ] = "",
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
    with (
        end_by_sigterm(),
        warm_process(list_pins(processes[0].determinism, processes[0].threads)),
        open_engine(params, cluster, jobs) as engine,
    ):
        tasks = open_tasks(params, digest_software() if cluster else None)
        all_is_well = sweep(engine, tasks, Board(engine.slots))
    if not all_is_well:
        return 1
    from pipelines import readme, table  # they import what a login node need not have

    readme.main()
    table.main()
    print(f"\nrepro took {format_duration(time.monotonic() - started)}")
    return 0


@contextmanager
def open_engine(params: Params, cluster: str, jobs: int) -> Iterator[Engine]:
    """Open the engine that ``--cluster`` names; close it after the block."""
    processes = [params.profile[name].process for name in params.run.profiles]
    engine: Engine
    if not cluster:
        gpus = list_gpus()
        engine = LocalEngine(jobs or count_default_jobs(processes, gpus), gpus)
    elif cluster == SLURM:
        from pipelines.sweep.slurm_engine import SlurmEngine

        engine = SlurmEngine(params.cluster, most=jobs or None)
    else:
        from pipelines.sweep.ray_engine import RayEngine

        address = None if cluster == AUTO else cluster
        threads = max(process.threads or 1 for process in processes)
        engine = RayEngine(params.cluster, address, jobs * threads or None)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def end_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that what is done is recorded."""

    def end(number: int, _: object) -> Never:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def count_default_jobs(processes: Sequence[Process], gpus: Sequence[str]) -> int:
    """Count the runs at a time: 1 with a GPU, otherwise as many as have cores for their threads."""
    if gpus:
        return 1
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // max(process.threads or cores for process in processes))


def format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"
