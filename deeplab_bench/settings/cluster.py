"""Settings of a sweep over several machines.

Of them, ``nodes`` and ``processes`` alone change a result: they share out the batch, and so change
the order of sums.
"""

from typing import Any

from pydantic import Field, model_validator

from deeplab_bench.settings.base import PositiveFloat, PositiveInt, Settings

SHARED = "shared"


class Resources(Settings):
    """What a stage that computes with a network asks a machine for.

    A training and an evaluation run on ``nodes`` machines with ``processes`` processes each,
    started by ``torchrun``. Each process has ``gpus`` GPUs (0: it computes on the CPU) and ``cpus``
    cores; without ``cpus``, ``process.threads``. ``memory_gib`` and ``hours`` are limits for each
    machine; without them, the cluster's own apply.
    """

    gpus: int = Field(default=0, ge=0, le=1)
    cpus: PositiveInt | None = None
    memory_gib: PositiveFloat | None = None
    hours: PositiveFloat | None = None
    nodes: PositiveInt = 1
    processes: PositiveInt = 1


class Cluster(Settings):
    """The machines that ``make repro CLUSTER=...`` uses.

    ``files`` says how files travel between them: ``shared``, if all machines see the folder of the
    repository under the same path, or the name of a DVC remote. Then ``folder`` is the folder on
    each machine that has its data. ``slurm`` has options of ``sbatch``, e.g. ``partition`` or
    ``account``.
    """

    files: str = SHARED
    folder: str | None = None
    slurm: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _remote_needs_a_folder(self) -> "Cluster":
        if (self.files == SHARED) != (self.folder is None):
            raise ValueError("folder goes with files that are not `shared`: give both or none")
        return self
