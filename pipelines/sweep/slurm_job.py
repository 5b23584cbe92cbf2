"""A task as a job of Slurm: it reports how far it is, and goes on after its time limit.

It needs the standard library and submitit alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from submitit import JobEnvironment

from pipelines.sweep import node
from pipelines.sweep.task import Ended, Event, Progress, Running, Task
from pipelines.sweep.torchrun import add_torchrun

REPORT_SECONDS = 2.0  # between two reports of one job, which all go through a shared disk
REQUEUE_SECONDS = 60
FIRST_PORT, PORTS = 20000, 10000


@dataclass(frozen=True)
class Job:
    """What submitit calls on a machine.

    A task that has not ended at its time limit is asked to end, so that a training saves its state,
    and Slurm starts the job again. ``restarts`` says how many times; None is without a limit.
    The newest event is in the file ``report``.
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
        reported = 0.0
        for event in node.run(task, should_end=lambda: bool(asked)):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [warning])
            if rank > 0:  # the first machine speaks for all
                continue
            if isinstance(event, Running):
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    write_report(Path(self.report), environment.job_id, event)
            elif event.status == 0 or not asked:
                write_report(Path(self.report), environment.job_id, event)
            elif warning in asked:
                self.requeue(environment.job_id, event)
            else:  # the driver, or Slurm for a reason that it tells the driver
                sys.exit(128 + signal.SIGTERM)

    def requeue(self, job: str, ended: Ended) -> None:
        """Let Slurm start this job again with the same arguments.

        A job does not count its restarts: Slurm does.
        """
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if self.restarts is not None and restarts >= self.restarts:
            said = (
                f"has not ended within its time limit, {restarts + 1} times, and begins anew each "
                "time: set or raise resources.hours of its profile"
            )
            event = Ended(ended.name, ended.node, 1, ended.seconds, said)
            write_report(Path(self.report), job, event)
            return
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=REQUEUE_SECONDS)
        sys.exit(128 + signal.SIGTERM)


def find_endpoint(task: Task) -> str | None:
    """Find where the machines of a job meet: at its first one, at a port by the job's number."""
    if task.needs.nodes == 1:
        return None
    port = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS
    return f"{os.environ['SLURM_LAUNCH_NODE_IPADDR']}:{port}"


def write_report(report: Path, job: str, event: Event) -> None:
    """Write the newest event of a job. A reader sees all of it or the one before."""
    content = {"job": job, "ended": isinstance(event, Ended), "event": asdict(event)}
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(report)


def read_report(report: Path, job: str) -> Event | None:
    """Read the newest event of a job; None if there is none, or only of an earlier job."""
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except OSError:
        return None
    if content["job"] != job:
        return None
    event = content["event"]
    if content["ended"]:
        return Ended(**event)
    progress = event.pop("progress")
    return Running(**event, progress=progress and Progress(**progress))
