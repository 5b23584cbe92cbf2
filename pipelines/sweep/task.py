"""What the driver and the machines of a sweep tell each other.

It needs the standard library alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Needs:
    """What a task asks a machine for.

    A task has ``nodes`` machines with ``processes`` processes each; ``cpus`` and ``gpus`` are of a
    process, ``memory_mib`` and ``hours`` are limits of a machine. ``expected_memory_mib`` is what
    it will probably need of a machine, so that not too many share one. A task that is ``alone``
    measures the machine, and so has it for itself.
    """

    cpus: int = 1
    gpus: int = 0
    memory_mib: int | None = None
    expected_memory_mib: int | None = None
    hours: float | None = None
    alone: bool = False
    nodes: int = 1
    processes: int = 1

    @property
    def node_cpus(self) -> int:
        return self.cpus * self.processes

    @property
    def node_gpus(self) -> int:
        return self.gpus * self.processes

    def __str__(self) -> str:
        parts = [f"{self.node_cpus} cores" if self.node_cpus > 1 else "1 core"]
        if self.gpus:
            parts.append(f"{self.node_gpus} GPUs" if self.node_gpus > 1 else "1 GPU")
        if self.memory_mib:
            parts.append(f"{self.memory_mib / 1024:.1f} GiB of memory")
        machine = " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)
        return f"{self.nodes} machines with {machine} each" if self.nodes > 1 else machine


@dataclass(frozen=True)
class Task:
    """A run of a stage, as a machine gets it.

    ``folder`` is where it runs: the repository's, as every machine sees it, or a folder of the
    machine. ``code`` is the digest that the machine's code must have, or None if it is the driver's
    own code. ``inputs`` and ``outputs`` are paths in the folder. If it ``is_shared``, other
    machines write into the folder, too. A task that is ``here`` runs on the machine of the driver.
    ``digest`` is of the command and the inputs, as DVC has them.

    If the machines share no folder, ``store`` is what DVC's configuration says of the remote
    between them, ``shipped`` has the digests of the inputs in it by path, and ``data`` those of
    inputs that every machine must have by itself.
    """

    name: str
    command: tuple[str, ...]
    folder: str
    code: str | None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    needs: Needs = Needs()
    is_shared: bool = False
    here: bool = False
    digest: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    store: Mapping[str, Any] | None = None
    shipped: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """How far a task is: ``done`` of ``total`` steps or images, and what its bar says beside."""

    done: int
    total: int
    unit: str
    seconds_left: float | None
    values: Mapping[str, str]


@dataclass(frozen=True)
class Running:
    """A task runs on a machine, perhaps on GPUs of it."""

    name: str
    node: str
    gpus: str = ""
    progress: Progress | None = None


@dataclass(frozen=True)
class Queued:
    """A task waits again, after it has run."""

    name: str


@dataclass(frozen=True)
class Ended:
    """A task has ended.

    ``status`` is its exit status. It is None if the machine was lost or has refused the task,
    which another machine may still do. ``said`` is why, or the end of its log. ``memory_mib`` is
    the most memory that its processes had at once, if this was measured. ``files`` has the digests
    of its outputs by path, if they are in a store, or a later sweep may take them over; it does so
    if the task has the same ``digest``.
    """

    name: str
    node: str
    status: int | None
    seconds: float
    said: str = ""
    refused: bool = False
    memory_mib: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


Event = Queued | Running | Ended


def get_profile(run: str) -> str:
    """Return the profile in the name of a run, such as ``train@quick-aspp-0``."""
    return run.partition("@")[2].partition("-")[0]
