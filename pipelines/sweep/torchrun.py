"""A task under ``torchrun``, for a training by several processes."""

from dataclasses import replace

from pipelines.sweep.task import Task


def add_torchrun(
    task: Task, endpoint: str | None = None, rank: int = 0, address: str | None = None
) -> Task:
    """Put ``torchrun`` before the command of a task that needs several processes.

    ``endpoint`` is where the machines of the task meet, at the first one; ``rank`` is the index of
    this machine, ``address`` where the others find it; without it, they find it by its name. Only
    the first keeps the task's name, and so its log. Which machine has process 0 is for ``torchrun``
    to say.
    """
    needs = task.needs
    if needs.nodes * needs.processes == 1 or (needs.nodes > 1 and endpoint is None):
        return task
    meeting = ["--standalone"]
    if endpoint is not None:
        meeting = [
            f"--nnodes={needs.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={endpoint}",
            f"--rdzv-conf=is_host={int(rank == 0)}",  # torchrun asks the host's name otherwise
            f"--rdzv-id={task.name}",
            *([] if address is None else [f"--local-addr={address}"]),
        ]
    python, *arguments = task.command
    command = (python, "-m", "torch.distributed.run", *meeting)
    return replace(
        task,
        name=task.name if rank == 0 else f"{task.name}.{rank}",
        command=(*command, f"--nproc-per-node={needs.processes}", *arguments),
    )
