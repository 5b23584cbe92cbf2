"""A task as a job of Slurm: it reports how far it is, and goes on after its time limit."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType

from submitit import JobEnvironment

from deeplab_bench.writing import DISK_FULL
from pipelines.sweep import node
from pipelines.sweep.store import digest_file
from pipelines.sweep.task import Ended, Progress, Running, Task
from pipelines.sweep.torchrun import add_torchrun

REPORT_SECONDS = 2.0  # between two reports of one job, which all go through a shared disk
REQUEUE_SECONDS = 60
ROOM_SECONDS = 5.0
FIRST_PORT, PORTS = 20000, 10000


@dataclass(frozen=True)
class Job:
    """What submitit calls on a machine.

    A task that has not ended at its time limit is asked to end, so that a training saves its state,
    and Slurm starts the job again. ``restarts`` says how many times; None is without a limit.
    The newest event is in the file ``report``. The first machine speaks for all, but each tells by
    itself that it refuses the task, or has failed.
    """

    task: Task
    report: str
    restarts: int | None

    def __call__(self) -> None:
        environment = JobEnvironment()
        rank = environment.global_rank
        task = add_torchrun(self.task, find_endpoint(self.task), rank)
        asked: list[int] = []

        def ask(number: int, _: FrameType | None) -> None:
            asked.append(number)

        # submitit's own handler requeues inside the handler, in the middle of any statement.
        warning = signal.Signals[f"SIG{environment.USR_SIG}"]
        signal.signal(warning, ask)
        signal.signal(signal.SIGTERM, ask)
        # Slurm warns every process of a job. The stage inherits the mask, and so survives it.
        signal.pthread_sigmask(signal.SIG_BLOCK, [warning])
        machine = os.environ["SLURMD_NODENAME"]  # which it may not know itself by
        report, job, reported = Path(self.report), environment.job_id, -math.inf
        gpus = None if task.needs.gpus else ""  # not every cluster hides those of others
        for event in node.run(task, gpus, should_end=lambda: bool(asked)):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [warning])
            if isinstance(event, Ended):
                ended = replace(event, name=self.task.name, node=machine, digest=self.task.digest)
                if rank > 0:
                    if ended.status != 0 and not asked:
                        write_end(get_report_of_member(report, rank), job, ended, asked)
                elif ended.status == 0:
                    files = digest_outputs(self.task)
                    write_end(report, job, replace(ended, files=files), asked)
                elif not asked:
                    write_end(report, job, ended, asked)
                elif warning in asked:
                    self.requeue(job, ended, asked)
                else:  # the driver, or Slurm for a reason that it tells the driver
                    sys.exit(128 + signal.SIGTERM)
            elif rank == 0 and time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                with suppress(OSError):  # the stage goes on; the next report may be written
                    write_report(report, job, replace(event, node=machine))

    def requeue(self, job: str, ended: Ended, asked: Sequence[int]) -> None:
        """Let Slurm start this job again with the same arguments."""
        report = Path(self.report)
        if self.restarts is not None:
            times = count_time_limits(report)
            if times > self.restarts:
                said = (
                    f"has not ended within its time limit, {times} times, and begins anew each "
                    "time: set or raise resources.hours of its profile"
                )
                event = Ended(ended.name, ended.node, 1, ended.seconds, said)
                write_end(report, job, event, asked)
                return
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=REQUEUE_SECONDS)
        sys.exit(128 + signal.SIGTERM)


def find_endpoint(task: Task) -> str | None:
    """Find where the machines of a job meet: at its first one, at a port by the job's number."""
    if task.needs.nodes == 1:
        return None
    port = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS
    return f"{os.environ['SLURM_LAUNCH_NODE_IPADDR']}:{port}"


def digest_outputs(task: Task) -> dict[str, str]:
    """Compute the digests of the files that a task has made, by path."""
    if task.is_shared:  # another machine of the job may have written them
        node.wait_for_files(Path(task.folder), task.outputs)
    files = {path: Path(task.folder) / path for path in task.outputs}
    return {name: digest_file(path) for name, path in files.items() if path.is_file()}


def get_report_of_member(report: Path, rank: int) -> Path:
    """Return the report of a machine of a job that is not the first one."""
    return report.with_suffix(f".{rank}{report.suffix}")


def count_time_limits(report: Path) -> int:
    """Count how often a task has come to its time limit, this time included.

    Slurm counts only how often it has started a job, for whatever reason.
    """
    limits = report.with_suffix(".limits")
    with suppress(OSError), limits.open("a", encoding="utf-8") as file:  # the disk may be full
        file.write("1\n")
    return len(limits.read_text(encoding="utf-8").split()) if limits.exists() else 1


def write_end(report: Path, job: str, ended: Ended, asked: Sequence[int]) -> None:
    """Write how a task has ended, as soon as the disk has room for it.

    Raises:
        OSError: it cannot be written, or a signal has asked for the end before there was room.
    """
    while True:
        try:
            return write_report(report, job, ended)
        except OSError as error:
            if error.errno not in DISK_FULL or asked:
                raise
        time.sleep(ROOM_SECONDS)


def write_report(report: Path, job: str, event: Running | Ended) -> None:
    """Write the newest event of a job. A reader sees all of it or the one before."""
    content = {"job": job, "ended": isinstance(event, Ended), "event": asdict(event)}
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(report)


def read_report(report: Path, job: str | None = None) -> Running | Ended | None:
    """Read the newest event of a job; None if there is none, or only of another job.

    Without ``job``, any job will do.
    """
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if job not in (None, content["job"]):
        return None
    event = content["event"]
    if content["ended"]:
        return Ended(**event)
    progress = event.pop("progress")
    return Running(**event, progress=progress and Progress(**progress))


def clear_reports(folder: Path) -> list[Ended]:
    """Empty the folder of reports, except for those of tasks that have ended well.

    Returns these ends.
    """
    ends = []
    for path in folder.glob("*"):
        event = read_report(path) if path.suffix == ".json" else None
        if isinstance(event, Ended) and event.status == 0:
            ends.append(event)
        else:
            with suppress(OSError):  # NFS keeps what is still open
                path.unlink()
    return ends
