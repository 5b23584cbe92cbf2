"""Tasks: what a run of DVC is for a machine."""

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deeplab_bench.settings.params import Params
from pipelines.stages import STAGES
from pipelines.sweep.task import Needs, Task

MIB_PER_GIB = 1024


def make_tasks(
    params: Params, code: str | None, environment: Mapping[str, str] = {}
) -> Callable[[Any], Task]:
    """Return a function that makes a task of a run of DVC.

    ``code`` is the digest that the code of a machine must have; None if it is the driver's own.
    """
    folder = str(Path.cwd())

    def make_task(run: Any) -> Task:
        return Task(
            name=run.addressing,
            command=tuple(shlex.split(run.cmd)),
            folder=folder,
            code=code,
            inputs=tuple(str(path.def_path) for path in run.deps),
            outputs=tuple(str(path.def_path) for path in run.outs),
            needs=find_needs(params, run.addressing),
            environment=environment,
        )

    return make_task


def find_needs(params: Params, run: str) -> Needs:
    """Find out what a run, such as ``train@quick-aspp-0``, asks a machine for."""
    stage, _, names = run.partition("@")
    profile = params.profile.get(names.partition("-")[0]) if stage in STAGES else None
    if profile is None:
        return Needs()
    known, resources = STAGES[stage], profile.resources
    cpus = resources.cpus or profile.process.threads or os.cpu_count() or 1
    if not known.network:
        return Needs(cpus=cpus)
    memory, shared = resources.memory_gib, known.distributed
    return Needs(
        cpus=cpus,
        gpus=resources.gpus,
        memory_mib=memory and round(memory * MIB_PER_GIB),
        hours=resources.hours,
        alone=known.cold,
        nodes=resources.nodes if shared else 1,
        processes=resources.processes if shared else 1,
    )
