"""Tasks: what a run of DVC is for a machine."""

import json
import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.runtime.source import DESCRIBED, describe_source
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.cluster import SHARED
from deeplab_bench.settings.sweep import SweepParams
from pipelines.stages import STAGES
from pipelines.sweep import node
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.store import Store, StoreError, digest_file
from pipelines.sweep.task import Ended, Needs, Task, get_profile

MIB_PER_GIB = 1024
MARGIN = 1.25  # of memory, as a run with another seed may need some more
DATA = "data/"  # every machine has its own


class Tasks:
    """Makes tasks of runs of DVC, for machines that see the folder of the driver.

    ``code`` is the digest that the code of a machine must have; None if it is the driver's own. If
    the folder ``is_shared``, it is a disk between several machines.
    """

    def __init__(
        self, params: SweepParams, code: str | None, costs: RunCosts, is_shared: bool = False
    ) -> None:
        self.params, self.code, self.costs, self.is_shared = params, code, costs, is_shared

    def find_needs(self, run: Any) -> Needs:
        return find_needs(self.params, self.costs, run.addressing)

    def make(self, run: Any, needs: Needs) -> Task:
        return Task(
            name=run.addressing,
            command=tuple(shlex.split(run.cmd)),
            folder=str(Path.cwd()),
            code=self.code,
            inputs=tuple(dependency.def_path for dependency in run.deps),
            outputs=tuple(output.def_path for output in run.outs),
            needs=needs,
            is_shared=self.is_shared,
        )

    def collect(self, task: Task, ended: Ended) -> None:
        """Bring the outputs of a task into the folder of the driver."""
        if self.is_shared:
            node.wait_for_files(Path(task.folder), task.outputs)


class StoreTasks(Tasks):
    """Makes tasks for machines that share nothing but a DVC remote with the driver.

    Only stages that compute with a network run there, in the folder ``cluster.folder``.
    """

    def __init__(
        self, params: SweepParams, code: str | None, costs: RunCosts, config: Mapping[str, Any]
    ) -> None:
        super().__init__(params, code, costs)
        self.config, self.store = config, Store(config)
        self.source = json.dumps(describe_source())

    def make(self, run: Any, needs: Needs) -> Task:
        task = super().make(run, needs)
        if not STAGES[run.addressing.partition("@")[0]].network:
            return replace(task, here=True)
        here = Path(task.folder)
        data = [path for path in task.inputs if path.startswith(DATA)]
        pins = ProfileFiles(get_profile(task.name)).process_settings  # no dependency of a stage
        shipped = [*(path for path in task.inputs if path not in data), str(pins)]
        return replace(
            task,
            folder=self.params.cluster.folder or task.folder,
            store=self.config,
            inputs=tuple(data),
            data={path: digest_file(here / path) for path in data if (here / path).is_file()},
            shipped=self.store.offer(here, shipped),
            environment={DESCRIBED: self.source},  # as git's folder is not shipped
        )

    def collect(self, task: Task, ended: Ended) -> None:
        self.store.fetch(Path.cwd(), ended.files)
        with suppress(StoreError):
            self.store.remove_snapshots(task)


def open_tasks(params: SweepParams, code: str | None, costs: RunCosts, is_cluster: bool) -> Tasks:
    """Return what makes the tasks of a sweep, as ``cluster.files`` says.

    Raises:
        ParamsError: DVC's configuration has no such remote, or its library is not installed.
    """
    name = params.cluster.files
    if not is_cluster or name == SHARED:
        return Tasks(params, code, costs, is_shared=is_cluster)
    from dvc.config import Config

    config = Config.from_cwd()
    if name not in config["remote"]:
        known = ", ".join(sorted(config["remote"])) or "none"
        raise ParamsError(
            f"cluster.files {name!r} is neither `shared` nor a DVC remote (there are: {known}): "
            f"add it with `dvc remote add {name} URL`"
        )
    try:
        return StoreTasks(params, code, costs, config["remote"][name])
    except ImportError as error:  # of a kind of remote, e.g. S3
        raise ParamsError(f"cluster.files {name!r}: {error}") from None


def find_needs(params: SweepParams, costs: RunCosts, run: str) -> Needs:
    """Find out what a run, such as ``train@quick-aspp-0``, asks a machine for."""
    stage = run.partition("@")[0]
    profile = params.profile.get(get_profile(run)) if stage in STAGES else None
    if profile is None:
        return Needs()
    known, resources = STAGES[stage], profile.resources
    cpus = profile.cpus or 1
    if not known.network:
        return Needs(cpus=cpus)
    memory, expected = resources.memory_gib, costs.expect_memory_mib(run)
    return Needs(
        cpus=cpus,
        gpus=resources.gpus,
        memory_mib=None if memory is None else round(memory * MIB_PER_GIB),
        expected_memory_mib=None if expected is None else math.ceil(MARGIN * expected),
        hours=resources.hours,
        alone=known.cold,
        nodes=resources.nodes if known.distributed else 1,
        processes=resources.processes if known.distributed else 1,
    )
