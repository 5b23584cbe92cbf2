"""The engine of a Ray cluster, or of a Ray on this machine alone.

Ray chooses the machine of a task by what the task needs. If a machine is lost, the driver gives the
task to another one.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import (
    NodeAffinitySchedulingStrategy,
    PlacementGroupSchedulingStrategy,
)

from deeplab_bench.settings.cluster import SHARED, Cluster
from pipelines.sweep import node
from pipelines.sweep.engine import EngineError
from pipelines.sweep.local import LocalEngine
from pipelines.sweep.task import Ended, Event, Needs, Running, Task, get_profile
from pipelines.sweep.torchrun import add_torchrun

POLL_SECONDS = 0.2
CONNECT_SECONDS, HEALTH_SECONDS = 5.0, 30.0
STOP_SECONDS = 90.0
# The code that machines without the driver's folder get. Ray names it by its digest.
NOT_SHIPPED = [
    *("/.git", "/.venv", "/.dvc", "/checkpoints", "/data", "/docs", "/logs", "/results", "/tests"),
    *("/benchmarks", "/studies", "__pycache__", "/*.egg-info"),
]
Told = tuple[str, Running | Ended]  # the machine's identifier and what it tells


class RayEngine:
    """Runs tasks on the machines of a Ray cluster.

    Without an ``address`` it starts a Ray on this machine, with ``cpus`` cores. ``most`` tasks run
    at a time; without it, as many as there are cores for.

    Raises:
        EngineError: nobody listens at the address.
    """

    def __init__(
        self,
        cluster: Cluster,
        address: str | None,
        cpus: int | None = None,
        most: int | None = None,
    ) -> None:
        options: dict[str, Any] = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        if address is not None:
            require_ray(address)
            options = {"address": address}
        is_shared = cluster.files == SHARED
        code: dict[str, Any] = {"env_vars": {"PYTHONPATH": str(node.ROOT)}}
        if not is_shared:
            code = {"working_dir": str(node.ROOT), "excludes": NOT_SHIPPED}
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # a task says itself what it sees
        try:
            ray.init(**options, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            said = " ".join(str(error).split())
            raise EngineError(
                f"Ray does not begin at {address or 'this machine'}: {said}"
            ) from None
        self.most = most
        self.streams = Streams()
        # What machines have refused, and why, by profile and then by the machine's identifier:
        # a machine may have the data of one profile alone.
        self.refusals: dict[str, dict[str, str]] = {}
        self.local = LocalEngine(1)  # for what belongs on the driver's machine
        self.waiting_here: list[Task] = []
        self.here: set[str] = set()  # what the local engine has not told the end of

    def has_gpus(self) -> bool:
        return any(machine["Resources"].get("GPU", 0) for machine in list_machines())

    def take_over(self) -> list[Ended]:
        return []  # tasks end with their driver

    def check(self, needs: Needs) -> None:
        if len(list_fitting(list_known_machines(), needs)) < needs.nodes:
            found = describe_machines(list_machines())
            raise EngineError(
                f"it needs {needs}, and the cluster has {found}: change "
                "profile.<name>.resources in params.yaml, or add a machine"
            )

    def has_room(self) -> bool:
        running = len(self.streams.generators)
        if self.most is not None:
            return running < self.most
        cores = sum(machine["Resources"].get("CPU", 0) for machine in list_machines())
        return running < max(1, cores)  # without a core, `check` says what is missing

    def submit(self, task: Task) -> None:
        if task.here:
            self.waiting_here.append(task)
            return
        refusals = self.refusals.get(get_profile(task.name), {})
        fitting = list_fitting(list_machines(), task.needs)
        able = [machine for machine in fitting if machine["NodeID"] not in refusals]
        if len(able) < task.needs.nodes <= len(fitting):  # otherwise a lost machine may come back
            raise EngineError(
                f"no machine of the cluster can go on: {'; '.join(refusals.values())}"
            )
        labels = {"ray.io/node-id": f"!in({','.join(refusals)})"} if refusals else {}
        if task.needs.nodes > 1:
            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            gang = run_gang.options(scheduling_strategy=here)
            self.streams.generators[task.name] = gang.remote(task, labels)
            return
        options = get_options(able, task.needs) | ({"label_selector": labels} if labels else {})
        run = run_task.options(**options)
        self.streams.generators[task.name] = run.remote(add_torchrun(task))

    def poll(self) -> list[Event]:
        if self.waiting_here and self.local.has_room():
            task = self.waiting_here.pop(0)
            self.here.add(task.name)
            self.local.submit(task)
        events = self.local.poll() if self.here else []
        self.here -= {event.name for event in events if isinstance(event, Ended)}
        for machine, event in self.streams.take(POLL_SECONDS):
            events.append(event)
            if isinstance(event, Ended) and event.refused:
                self.refusals.setdefault(get_profile(event.name), {})[machine] = event.said
        return events

    def stop(self) -> list[Event]:
        self.waiting_here.clear()
        events = self.local.stop()
        with suppress(EngineError):  # the head is lost
            require_head()
            for generator in self.streams.generators.values():
                ray.cancel(generator, force=False)
            deadline = time.monotonic() + STOP_SECONDS
            while self.streams.generators and time.monotonic() < deadline:
                events += self.poll()
        return events

    def close(self) -> None:
        with suppress(EngineError):  # Ray would wait for a head that is lost
            require_head()
            ray.shutdown()


class Streams:
    """What tasks tell, by the names of their generators. That a machine is lost is told, too."""

    def __init__(self, generators: Mapping[str, Any] | None = None) -> None:
        self.generators: dict[str, Any] = dict(generators or {})
        self.machines: dict[str, str] = {}

    def take(self, seconds: float) -> list[Told]:
        """Wait for so long at most, and return what has been told since the last time."""
        names = {generator: name for name, generator in self.generators.items()}
        if not names:
            return []
        ray.wait(list(names), num_returns=1, timeout=seconds)
        ready, _ = ray.wait(list(names), num_returns=len(names), timeout=0)
        told = [self._take_next(names[generator]) for generator in ready]
        # Ray itself takes minutes to tell that a cable is cut.
        alive = {machine["NodeID"] for machine in list_machines()}
        silent = self.machines.keys() - {names[generator] for generator in ready}
        told += [tell_loss(name) for name in silent if self.machines[name] not in alive]
        for _, event in told:
            if isinstance(event, Ended):
                del self.generators[event.name]
                self.machines.pop(event.name, None)
        return told

    def _take_next(self, name: str) -> Told:
        try:
            machine, event = ray.get(next(self.generators[name]))
        except (RayError, StopIteration) as error:
            return tell_loss(name, *str(error).strip().splitlines()[-1:])
        self.machines[name] = machine
        return machine, replace(event, name=name)


def tell_loss(name: str, said: str = "its machine is lost") -> Told:
    return "", Ended(name, "", None, 0.0, said)


def require_ray(address: str) -> None:
    """Check that the head of a Ray cluster is at an address; Ray itself would wait for minutes.

    Raises:
        EngineError: there is none.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise EngineError(f"--cluster {address} is neither `auto`, `slurm` nor HOST:PORT")
    try:
        connect(address)
    except OSError as error:
        raise EngineError(
            f"--cluster {address}: nobody listens there ({error.strerror or error}): start Ray on "
            "that machine with `ray start --head`, and give the address that it prints"
        ) from None
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        subprocess.run(ask, check=True, capture_output=True, timeout=HEALTH_SECONDS)
    except subprocess.SubprocessError:
        raise EngineError(
            f"--cluster {address}: something else than the head of a Ray cluster listens there: "
            "give the address that `ray start --head` prints, mostly with the port 6379"
        ) from None


def connect(address: str) -> None:
    """Connect to HOST:PORT and leave again.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


def require_head() -> None:
    """Check that the head of the cluster answers; without it, Ray itself ends this process.

    Raises:
        EngineError: it does not.
    """
    head = ray.get_runtime_context().gcs_address
    try:
        connect(head)
    except OSError as error:
        raise EngineError(
            f"the head of the Ray cluster, {head}, does not answer any more "
            f"({error.strerror or error}): what is done is recorded; start the cluster again, and "
            "run the same command"
        ) from None


def list_known_machines() -> list[dict[str, Any]]:
    """List the machines of the cluster, as Ray describes them; lost ones, too: they may return."""
    require_head()
    found: list[dict[str, Any]] = ray.nodes()
    return found


def list_machines() -> list[dict[str, Any]]:
    """List the machines of the cluster that are alive."""
    return [machine for machine in list_known_machines() if machine["Alive"]]


def list_fitting(machines: Sequence[dict[str, Any]], needs: Needs) -> list[dict[str, Any]]:
    """List the machines that are large enough for a task."""
    wanted = get_resources(needs)
    return [
        machine
        for machine in machines
        if all(machine["Resources"].get(key, 0) >= much for key, much in wanted.items())
    ]


def describe_machines(machines: Sequence[dict[str, Any]]) -> str:
    """Describe the largest of what machines have."""
    cpus, gpus, memory = (
        max((machine["Resources"].get(key, 0) for machine in machines), default=0)
        for key in ("CPU", "GPU", "memory")
    )
    count = "1 machine" if len(machines) == 1 else f"{len(machines)} machines"
    return f"{count} with at most {cpus:.0f} cores, {gpus:.0f} GPUs, {memory / 2**30:.1f} GiB"


def get_resources(needs: Needs) -> dict[str, float]:
    """Return what a task needs of one machine, by Ray's names of resources."""
    wanted: dict[str, float] = {"CPU": needs.node_cpus}
    if needs.gpus:
        wanted["GPU"] = needs.node_gpus
    if needs.memory_mib is not None:
        wanted["memory"] = needs.memory_mib * 2**20
    return wanted


def get_options(machines: Sequence[dict[str, Any]], needs: Needs) -> dict[str, Any]:
    """Return the options of a Ray task that one of ``machines`` is to run.

    A task that measures a machine takes all cores of the largest. Memory that is only expected
    keeps no task from the machine that has most of it. Without machines, it waits for one.
    """
    wanted = get_resources(needs)
    resources = [machine["Resources"] for machine in machines]
    if needs.alone and resources:
        wanted["CPU"] = max(one["CPU"] for one in resources)
        resources = [one for one in resources if one["CPU"] == wanted["CPU"]]
    if needs.memory_mib is None and needs.expected_memory_mib is not None:
        most = max((one.get("memory", 0) for one in resources), default=0)
        wanted["memory"] = min(needs.expected_memory_mib * 2**20, most)
    options = {"num_cpus": wanted["CPU"], "num_gpus": wanted.get("GPU", 0)}
    return options | ({"memory": wanted["memory"]} if "memory" in wanted else {})


@ray.remote(num_returns="streaming", max_retries=0)
def run_task(task: Task) -> Generator[Told, None, None]:
    """Run a task on this machine."""
    yield from run_here(task)


@ray.remote(num_returns="streaming", max_retries=0)
def run_member(task: Task, endpoint: str, rank: int) -> Generator[Told, None, None]:
    """Run the part that this machine has of a task."""
    yield from run_here(add_torchrun(task, endpoint, rank, ray.util.get_node_ip_address()))


def run_here(task: Task) -> Iterator[Told]:
    context = ray.get_runtime_context()
    gpus = ",".join(context.get_accelerator_ids()["GPU"]) if task.needs.gpus else ""
    for event in node.run(task, gpus):
        yield context.get_node_id(), event


@ray.remote(num_returns="streaming", max_retries=0, num_cpus=0)
def run_gang(task: Task, labels: Mapping[str, str]) -> Generator[Told, None, None]:
    """Run one training on several machines that have some labels, under ``torchrun``.

    It tells what the first machine tells. If one of them is lost, all end, and the driver begins
    the training again from its last snapshot.
    """
    resources, count = get_resources(task.needs), task.needs.nodes
    group = placement_group(
        [resources] * count,
        strategy="STRICT_SPREAD",
        bundle_label_selector=[dict(labels)] * count if labels else None,
    )
    members: list[Any] = []
    try:
        ray.get(group.ready())
        places = [
            PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            for rank in range(task.needs.nodes)
        ]
        endpoint = ray.get(find_endpoint.options(scheduling_strategy=places[0]).remote())
        options = {"num_cpus": resources["CPU"], "num_gpus": resources.get("GPU", 0)}
        for rank, place in enumerate(places):
            run = run_member.options(**options, scheduling_strategy=place)
            members.append(run.remote(task, endpoint, rank))
        yield from follow(task.name, members)
    finally:
        for member in members:
            ray.cancel(member, force=False)
        remove_placement_group(group)


def follow(name: str, members: Sequence[Any]) -> Iterator[Told]:
    """Follow the members of a gang until all have ended, or one of them has not ended well."""
    streams = Streams({str(rank): member for rank, member in enumerate(members)})
    ends: list[tuple[str, Ended]] = []
    while streams.generators:
        for machine, event in streams.take(POLL_SECONDS):
            told = machine, replace(event, name=name)
            if isinstance(event, Running):
                if event.progress is not None:  # process 0 alone has a bar
                    yield told
            elif event.status == 0:
                ends.append((machine, event))
            else:
                yield told
                return
    files = {path: digest for _, end in ends for path, digest in end.files.items()}
    machine, last = ends[-1]
    yield machine, replace(last, name=name, files=files)


@ray.remote(num_cpus=0)
def find_endpoint() -> str:
    """Find an address of this machine at which the processes of a training can meet."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    return f"{ray.util.get_node_ip_address()}:{port}"
