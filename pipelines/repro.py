"""Command ``repro``: run all that is due, here or on a cluster, and update README.md."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Annotated

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.pins import can_pin_instructions, list_pins
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.sweep import SweepParams, SweepProfile, load_sweep_params
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.engine import Engine
from pipelines.sweep.local import LocalEngine, list_gpus
from pipelines.sweep.node import digest_software, find_version
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.tasks import open_tasks
from pipelines.warm import warm_process

AUTO, SLURM = "auto", "slurm"


def main(
    *,
    jobs: Annotated[
        int | None, "runs side by side; default: 1 on a GPU, as many as fit on a CPU"
    ] = None,
    cluster: Annotated[
        str, f"{AUTO}: Ray on this machine; {SLURM}; or the address of a Ray cluster"
    ] = "",
) -> int:
    """Run everything that is due and return 0 if all went well."""
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: give the number of runs side by side, 1 or more")
    started = time.monotonic()
    if cluster:
        params = load_sweep_params()  # the stage `resolve` checks the rest of the file
        require_cores(params)
    else:
        from deeplab_bench.settings.loading import load_params  # needs torch

        params = SweepParams.model_validate(load_params(), from_attributes=True)
    processes = [params.profile[name].process for name in params.run.profiles]
    if not cluster and processes[0].determinism == "portable" and not can_pin_instructions():
        print(
            "warning: this processor has no AVX2, so that determinism portable pins no "
            "instructions: results will differ from those of other machines",
            file=sys.stderr,
        )
    with (
        warm_process(list_pins(processes[0].determinism, processes[0].threads))
        if cluster in ("", AUTO)  # otherwise the stages run elsewhere
        else nullcontext(),
        open_engine(params, cluster, jobs) as engine,
    ):
        code = digest_software() if cluster else None
        if cluster == SLURM and find_version("torch") is None:
            code = None  # there is no version here that the machines could compare theirs with
        costs = RunCosts()
        tasks = open_tasks(params, code, costs, is_cluster=bool(cluster))
        all_is_well = sweep(engine, tasks, Board(costs))
    if not all_is_well:
        return 1
    show_results()
    print(f"\nrepro took {format_duration(time.monotonic() - started)}")
    return 0


def require_cores(params: SweepParams) -> None:
    """Check that every profile says how many cores of a machine a stage has.

    Raises:
        ParamsError: one does not. On this machine alone, a stage would have all cores.
    """
    for name in params.run.profiles:
        if params.profile[name].cpus is None:
            raise ParamsError(
                f"--cluster: profile.{name} does not say how many cores a stage has: set "
                f"profile.{name}.resources.cpus"
            )


def show_results() -> None:
    """Put the results into README.md and print the table, if this machine can."""
    try:
        from pipelines import readme, table
    except ModuleNotFoundError as error:
        print(
            f"README.md stays as it was, since this machine has no {error.name}: run "
            "`deeplab-bench readme` and `deeplab-bench table` on another"
        )
        return
    readme.main()
    table.main()


@contextmanager
def open_engine(params: SweepParams, cluster: str, jobs: int | None) -> Iterator[Engine]:
    """Open the engine that ``--cluster`` names; close it after the block."""
    processes = [params.profile[name].process for name in params.run.profiles]
    engine: Engine
    if not cluster:
        gpus = list_gpus()
        engine = LocalEngine(jobs or count_default_jobs(processes, gpus), gpus)
    elif cluster == SLURM:
        from pipelines.sweep.slurm_engine import SlurmEngine

        engine = SlurmEngine(params.cluster, most=jobs)
    else:
        from pipelines.sweep.ray_engine import RayEngine

        address = None if cluster == AUTO else cluster
        cores = max(count_cores(params.profile[name]) for name in params.run.profiles)
        cpus = None if jobs is None else jobs * cores
        engine = ray_engine = RayEngine(params.cluster, address, cpus, most=jobs)
        for name in params.run.profiles if ray_engine.has_gpus() else ():
            if not params.profile[name].resources.gpus:
                print(
                    f"warning: the machines have GPUs, but profile.{name}.resources.gpus is 0: "
                    "its stages run on their CPUs",
                    file=sys.stderr,
                )
    try:
        yield engine
    finally:
        engine.close()


def count_cores(profile: SweepProfile) -> int:
    """Count the cores of a machine that a stage of a profile asks for."""
    return (profile.cpus or 1) * profile.resources.processes


def count_default_jobs(processes: Sequence[Process], gpus: Sequence[str]) -> int:
    """Count the runs at a time: 1 with a GPU, otherwise as many as have cores for their threads."""
    if gpus:
        return 1
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // max(process.threads or cores for process in processes))


def format_duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s"
