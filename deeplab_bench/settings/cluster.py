"""Settings of a sweep over several machines.

Of them, ``nodes`` and ``processes`` alone change a result: they share out the batch, and so change
the order of sums.
"""

from typing import Any

from pydantic import Field, model_validator

from deeplab_bench.settings.base import PositiveFloat, PositiveInt, Settings

SHARED = "shared"


class Resources(Settings):
    """What a stage that computes with a network asks a machine for."""

    gpus: int = Field(default=0, ge=0, le=1)
    """GPUs of each process; 0: it computes on the CPU."""
    cpus: PositiveInt | None = None
    """Cores of each process; without it, ``process.threads``."""
    memory_gib: PositiveFloat | None = None
    """Most memory on each machine; without it, the cluster's own limit."""
    hours: PositiveFloat | None = None
    """Most time on each machine; without it, the cluster's own limit."""
    nodes: PositiveInt = 1
    """Machines for one training or evaluation."""
    processes: PositiveInt = 1
    """Processes on each of these machines, started by ``torchrun``."""


class Cluster(Settings):
    """The machines that ``make repro CLUSTER=...`` uses, and how files travel between them."""

    files: str = SHARED
    """``shared``: all machines see the repository under one path; or the name of a DVC remote."""
    folder: str | None = None
    """With a remote: the folder on each machine that has its data."""
    slurm: dict[str, Any] = Field(default_factory=dict)
    """Options of ``sbatch``, such as ``partition`` or ``account``."""

    @model_validator(mode="after")
    def _remote_needs_a_folder(self) -> "Cluster":
        if (self.files == SHARED) != (self.folder is None):
            raise ValueError("folder goes with files that are not `shared`: give both or none")
        return self
