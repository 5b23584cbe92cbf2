"""The engine of a Slurm cluster: a job for each task, submitted by submitit.

Tasks with the same needs that are ready together are one array of jobs. The jobs report through
files in the shared folder, and ``squeue`` tells of those that cannot.
"""

import hashlib
import io
import math
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from submitit import SlurmExecutor
from submitit.core.utils import JobPaths

from deeplab_bench.settings.cluster import SHARED, Cluster
from deeplab_bench.writing import DISK_FULL, describe_lack_of_room
from pipelines.stages import STAGES
from pipelines.sweep import node
from pipelines.sweep.engine import ASK_FOR_ROOM, EngineError
from pipelines.sweep.node import LOG_BYTES
from pipelines.sweep.slurm_job import Job, get_report_of_member, read_report
from pipelines.sweep.slurm_options import read_options
from pipelines.sweep.task import Ended, Event, Needs, Queued, Task

FOLDER = Path("logs") / "slurm"
PROGRAMS = ("sbatch", "scancel", "scontrol", "squeue", "srun")
POLL_SECONDS = 0.5
ASK_SECONDS = 3.0  # between questions to Slurm, which has others to serve
RETRY_SECONDS = 30.0
NO_ANSWER = ("Unable to contact", "timed out", "temporarily", "Zero Bytes", "standby mode")
LIMIT = "accounting/QOS policy"  # which other jobs of the sweep may have used up
RESULT_SECONDS = 60.0  # until a shared disk shows every machine what a job wrote at its end
MEMBER_SECONDS = 60.0  # until the first machine of a job tells why another has failed
END_SECONDS = node.END_SECONDS + 30
SIGNAL_SECONDS = 10.0
KILL_SECONDS = 60.0
MOST_IN_ARRAY = 1000  # Slurm's default limit
# A training goes on where it was, and so may need its time limit any number of times. Any other
# stage begins anew, and would again not end.
RESTARTS_FROM_ZERO = 2
WARNING_SECONDS = 90  # before the time limit: the time that a stage has to end, and some more
CLOCK_SECONDS = 30  # Slurm looks at time limits as often as that
HELD = ("REQUEUE_HOLD", "SPECIAL_EXIT")
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", *HELD)
OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)
# Reasons of waiting that nothing but a change of the job or of the cluster ends.
FOR_EVER = ("BadConstraints", "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit")
# Reasons of waiting that an administrator ends, if anybody.
HOLDS = ("JobHeldAdmin", "JobHoldMaxRequeue", "requeued held", "requeued in held state")
GONE = "GONE"  # Slurm remembers a job for some minutes alone


class State(NamedTuple):
    """What Slurm says of a job."""

    name: str
    machine: str = ""
    reason: str = ""


@dataclass
class Submitted:
    """A task that Slurm has.

    ``gone_since`` is when its job was first seen to be over, ``failed_since`` when a machine of it
    but the first was first seen to have failed.
    """

    task: Task
    job: str
    told: Event | None = None
    gone_since: float | None = None
    failed_since: float | None = None

    @property
    def report(self) -> Path:
        return get_report(self.task)


class SlurmEngine:
    """Runs tasks as jobs of Slurm, at most ``most`` at a time; without it, as many as Slurm will.

    All jobs have one name, which tells them from those of other folders.
    """

    def __init__(self, cluster: Cluster, most: int | None) -> None:
        if cluster.files != SHARED:
            raise EngineError(
                f"cluster.files is {cluster.files!r}, but Slurm needs {SHARED!r}: every machine "
                "must see this folder under the same path"
            )
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise EngineError(
                f"Slurm's program {missing[0]} is not on the PATH: run this on a login node"
            )
        self.options = read_options(cluster.slurm)
        self.most = most
        folder = hashlib.sha256(str(Path.cwd()).encode()).hexdigest()
        self.name = f"deeplab-bench-{folder[:8]}"
        answer = ask("squeue", *self._select())
        if answer.returncode:
            raise EngineError(f"Slurm does not answer: {join_lines(answer.stderr)}")
        self.waiting: list[Task] = []
        self.submitted: dict[str, Submitted] = {}
        self.refusing: set[str] = set()  # machines that lack what tasks need
        self.has_begun = False
        self.has_accounting = shutil.which("sacct") is not None
        self.asked_at = self.retry_at = -math.inf
        self.said = ""  # why tasks that could be submitted wait

    def check(self, needs: Needs) -> None:
        """Check that a time limit leaves time for work; Slurm itself checks the rest."""
        limit = self.make_parameters(needs)["time"]
        warned = self.options.get("signal_delay_s", WARNING_SECONDS) + CLOCK_SECONDS
        if isinstance(limit, int) and 60 * limit <= warned:
            hours = f"resources.hours {needs.hours}"
            name = f"cluster.slurm.time {limit}" if needs.hours is None else hours
            raise EngineError(
                f"{name} is too short: a job is asked to end {warned} s before its time limit"
            )

    def has_room(self) -> bool:
        return self.most is None or len(self.submitted) + len(self.waiting) < self.most

    def submit(self, task: Task) -> None:
        self.waiting.append(task)

    def poll(self) -> list[Event]:
        refused: list[Event] = []
        if self.waiting and time.monotonic() > self.retry_at:
            refused = self._submit_waiting()
        time.sleep(POLL_SECONDS)
        if time.monotonic() - self.asked_at < ASK_SECONDS:
            return refused
        self.asked_at = time.monotonic()
        return refused + self._look()

    def stop(self) -> list[Event]:
        self.waiting.clear()
        if not self.has_begun:
            return []
        self._end_all()
        events = [read_report(one.report, one.job) for one in self.submitted.values()]
        self.submitted.clear()
        return [event for event in events if isinstance(event, Ended)]

    def close(self) -> None:
        if self.has_begun:
            self._cancel()

    def _begin(self) -> None:
        """Make room in the queue and on the disk. Nobody else does: the driver has DVC's lock."""
        left = self._list_left()
        if left is None:
            self._retry(f"warning: squeue fails; it is tried again every {RETRY_SECONDS:.0f} s")
            return
        self.has_begun = True
        if left:
            print(
                f"warning: {len(left)} jobs of a sweep whose driver was killed are still in the "
                "queue; they are asked to end first",
                file=sys.stderr,
            )
            self._end_all()
        shutil.rmtree(FOLDER, ignore_errors=True)

    def _submit_waiting(self) -> list[Event]:
        """Submit all that waits, and return the ends of what Slurm refuses."""
        if not self.has_begun:
            self._begin()
        if not self.has_begun:
            return []
        if self.retry_at > -math.inf:
            self._cancel_half_submitted()
        alike: dict[tuple[Needs, int | None], list[Task]] = {}
        for task in self.waiting:
            needs = replace(task.needs, expected_memory_mib=None)  # which Slurm is not told
            alike.setdefault((needs, count_restarts(task)), []).append(task)
        refused: list[Event] = []
        for (needs, restarts), tasks in alike.items():
            for first in range(0, len(tasks), MOST_IN_ARRAY):
                refused += self._submit_array(needs, restarts, tasks[first : first + MOST_IN_ARRAY])
        return refused

    def _submit_array(
        self, needs: Needs, restarts: int | None, tasks: Sequence[Task]
    ) -> Sequence[Event]:
        executor = self.make_executor(needs)
        try:
            with redirect_stderr(io.StringIO()), executor.batch():  # the error has what is said
                jobs = [
                    executor.submit(Job(task, str(get_report(task).absolute()), restarts))
                    for task in tasks
                ]
        except (OSError, RuntimeError) as error:
            self._cancel_half_submitted()
            return self._take_failure(needs, tasks, error)
        self.said = ""
        for task, job in zip(tasks, jobs, strict=True):
            self.waiting.remove(task)
            self.submitted[task.name] = Submitted(task, job.job_id)
        return []

    def _take_failure(
        self, needs: Needs, tasks: Sequence[Task], error: Exception
    ) -> Sequence[Event]:
        """Take that a submission has failed: leave the tasks for later, or return their ends."""
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            self._retry(f"error: {os.strerror(error.errno)}: {ASK_FOR_ROOM}")
            return []
        said = join_lines(str(error))
        if any(reason in said for reason in NO_ANSWER):
            self._retry(
                f"warning: {said}; jobs are submitted as soon as Slurm answers again, which is "
                f"tried every {RETRY_SECONDS:.0f} s"
            )
            return []
        if LIMIT in said and self.submitted:
            self.retry_at = time.monotonic() + RETRY_SECONDS
            return []
        if LIMIT in said and len(tasks) > 1:
            said += f"; {len(tasks)} jobs were submitted at once: JOBS=n submits n at most"
        self.waiting = [task for task in self.waiting if task not in tasks]
        said = f"Slurm refuses a job with {needs}: {said}"
        return [Ended(task.name, "", 1, 0.0, said) for task in tasks]

    def _retry(self, why: str) -> None:
        """Submit later what waits, and say why, once."""
        self.retry_at = time.monotonic() + RETRY_SECONDS
        if why != self.said:
            self.said = why
            print(why, file=sys.stderr)

    def _cancel_half_submitted(self) -> None:
        """Cancel jobs that Slurm has got, but whose submission has failed after that."""
        known = {one.job for one in self.submitted.values()}
        for job in self._list_left() or ():
            if job not in known:
                ask("scancel", job)

    def make_executor(self, needs: Needs) -> SlurmExecutor:
        executor = SlurmExecutor(FOLDER)
        executor.update_parameters(**self.make_parameters(needs))
        return executor

    def make_parameters(self, needs: Needs) -> dict[str, Any]:
        """Return what submitit and ``sbatch`` are told of tasks with these needs."""
        known = SlurmExecutor._valid_parameters()
        further = {key: value for key, value in self.options.items() if key not in known}
        parameters = {"time": None, "signal_delay_s": WARNING_SECONDS} | {
            key: value for key, value in self.options.items() if key in known
        }
        parameters |= {
            "job_name": self.name,
            "nodes": needs.nodes,
            "ntasks_per_node": 1,
            "cpus_per_task": needs.node_cpus,
            # srun does not ask sbatch. With a number, a step has no other core of its job.
            "srun_args": ["--cpu-bind=none"]
            if needs.alone
            else [f"--cpus-per-task={needs.node_cpus}"],
            "array_parallelism": MOST_IN_ARRAY,
            "stderr_to_stdout": True,
            "additional_parameters": {"requeue": True} | further,
        }
        if needs.gpus:
            parameters["gpus_per_node"] = needs.node_gpus
        if needs.memory_mib is not None:
            parameters["mem"] = f"{needs.memory_mib}M"
        if needs.hours is not None:
            parameters["time"] = math.ceil(60 * needs.hours)
        if needs.alone:
            parameters["exclusive"] = True
        if self.refusing:
            own = [str(self.options["exclude"])] if "exclude" in self.options else []
            parameters["exclude"] = ",".join([*own, *sorted(self.refusing)])
        return parameters

    def _look(self) -> list[Event]:
        """Return what is new of all tasks."""
        states = self._ask_states()
        if states is None:  # Slurm's controller does not answer; the jobs go on
            return []
        states |= self._ask_accounting(
            [j.job for j in self.submitted.values() if j.job not in states]
        )
        events = []
        for one in list(self.submitted.values()):
            state = states.get(one.job, State(GONE))
            event = self._look_at(one, state)
            if event is not None and event != one.told:
                one.told = event
                events.append(event)
            if isinstance(event, Ended):
                del self.submitted[one.task.name]
                if event.refused:
                    self.refusing.add(event.node)
                if event.status is None:  # no part of the job may go on beside its successor
                    ask("scancel", one.job)
        return events

    def _look_at(self, one: Submitted, state: State) -> Event | None:
        if state.name in QUEUED and is_held(state):
            said = f"Slurm holds its job {one.job} ({state.name}: {state.reason})"
            return Ended(one.task.name, "", None, 0.0, said)
        if state.name in QUEUED and state.reason in FOR_EVER:
            ask("scancel", one.job)
            said = (
                f"it needs {one.task.needs}, and its job would wait for ever ({state.reason}): "
                "change profile.<name>.resources or cluster.slurm in params.yaml"
            )
            return Ended(one.task.name, "", 1, 0.0, said)
        if state.name in QUEUED:
            forget_failures(one)
            return Queued(one.task.name) if one.told else None
        event = read_reports(one)
        if isinstance(event, Ended):
            return explain(event)
        if state.name not in OVER and state.name != GONE:
            return event
        one.gone_since = one.gone_since or time.monotonic()
        if state.name in ("COMPLETED", GONE) and time.monotonic() - one.gone_since < RESULT_SECONDS:
            return None
        ask("scancel", one.job)  # Slurm must not start it again beside its successor
        return describe_loss(one, state)

    def _ask_states(self) -> dict[str, State] | None:
        """Ask Slurm for the states of all jobs; None if it does not answer."""
        done = ask(
            "squeue",
            *self._select(),
            "--array",
            "--noheader",
            "--states=all",
            "--format=%i|%T|%N|%r",
        )
        if done.returncode:
            return None
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return {job: State(*state) for job, *state in rows}

    def _ask_accounting(self, jobs: Sequence[str]) -> dict[str, State]:
        """Ask for jobs that have left Slurm's memory. Not every cluster keeps account."""
        if not jobs or not self.has_accounting:
            return {}
        form = ("--allocations", "--noheader", "--parsable2", "--format=JobID,State,NodeList")
        done = ask("sacct", *form, f"--jobs={','.join(jobs)}")
        self.has_accounting = done.returncode == 0
        if not self.has_accounting:
            return {}
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return {job: State(name.split(" ")[0], machine) for job, name, machine in rows}

    def _list_left(self) -> list[str] | None:
        """List the jobs that are not over; None if Slurm does not answer."""
        states = self._ask_states()
        if states is None:
            return None
        return [job for job, state in states.items() if state.name not in OVER]

    def _end_all(self) -> None:
        """Cancel what waits, and let what runs save its state and end."""
        deadline = time.monotonic() + END_SECONDS
        signal_at = -math.inf
        while self._list_left() != [] and time.monotonic() < deadline:
            ask("scancel", *self._select(), "--state=PENDING")
            if time.monotonic() > signal_at:  # again, for a job that had not yet begun to listen
                signal_at = time.monotonic() + SIGNAL_SECONDS
                ask(
                    "scancel", *self._select(), "--state=RUNNING", f"--signal={signal.SIGTERM.name}"
                )
            time.sleep(POLL_SECONDS)
        self._cancel()
        deadline = time.monotonic() + KILL_SECONDS
        while self._list_left() != [] and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _cancel(self) -> None:
        ask("scancel", *self._select())

    def _select(self) -> tuple[str, ...]:
        return f"--user={pwd.getpwuid(os.geteuid()).pw_name}", f"--name={self.name}"


def ask(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, input="", capture_output=True, text=True, check=False)


def read_reports(one: Submitted) -> Event | None:
    """Read the newest event of a task: of its first machine, or of one that it would wait for."""
    event = read_report(one.report, one.job)
    if isinstance(event, Ended):
        return event
    for rank in range(1, one.task.needs.nodes):
        member = read_report(get_report_of_member(one.report, rank), one.job)
        if isinstance(member, Ended):
            one.failed_since = one.failed_since or time.monotonic()
            if member.refused or time.monotonic() - one.failed_since > MEMBER_SECONDS:
                return replace(member, status=None)
    return event


def forget_failures(one: Submitted) -> None:
    """Forget that machines of a job have failed, which begins again with the same number."""
    one.failed_since = None
    for rank in range(1, one.task.needs.nodes):
        get_report_of_member(one.report, rank).unlink(missing_ok=True)


def get_report(task: Task) -> Path:
    return FOLDER / f"{task.name}.json"


def count_restarts(task: Task) -> int | None:
    """Return how often a task may begin again after its time limit; None is without a limit."""
    stage = STAGES.get(task.name.partition("@")[0])
    return None if stage is not None and stage.resumes else RESTARTS_FROM_ZERO


def is_held(state: State) -> bool:
    """Tell whether Slurm holds a job that waits, of its own accord."""
    reason = state.reason.replace("_", " ")
    return state.name in HELD or any(hold in reason for hold in HOLDS)


def explain(ended: Ended) -> Ended:
    """Say what to do about a task that was killed, perhaps since memory ran out."""
    if ended.status != -signal.SIGKILL:
        return ended
    said = f"{ended.said}\nif memory ran out, {say_how_to_give_memory(ended.name)}"
    return Ended(ended.name, ended.node, ended.status, ended.seconds, said)


def describe_loss(one: Submitted, state: State) -> Ended:
    """Describe the end of a job that has left no report. It begins again if this may help."""
    name, machine, job = one.task.name, state.machine, f"its job {one.job}"
    if state.name == "CANCELLED":
        return Ended(name, machine, 1, 0.0, f"{job} was cancelled")
    if state.name == "OUT_OF_MEMORY":
        said = f"{job} has run out of memory: {say_how_to_give_memory(name)}"
        return Ended(name, machine, 1, 0.0, said)
    if state.name == GONE:
        return Ended(name, machine, None, 0.0, f"{job} has left the queue without a result")
    lack = describe_lack_of_room(Path(), LOG_BYTES)
    if lack is not None:  # a job that cannot report has failed for that reason, and would again
        return Ended(name, machine, 1, 0.0, f"{job} has ended as {state.name}: {lack}")
    log = JobPaths(FOLDER, job_id=one.job).stdout
    last = f": {node.read_tail(log)[-1]}" if state.name == "FAILED" and log.exists() else ""
    return Ended(name, machine, None, 0.0, f"{job} on {machine} has ended as {state.name}{last}")


def say_how_to_give_memory(run: str) -> str:
    profile = run.partition("@")[2].partition("-")[0]
    return f"raise profile.{profile}.resources.memory_gib"


def join_lines(message: str) -> str:
    """Join what a program of Slurm says to one line."""
    lines = [
        line.removeprefix("sbatch: ").removeprefix("error: ")
        for line in message.strip().splitlines()
    ]
    return "; ".join(lines)
