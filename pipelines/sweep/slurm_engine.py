"""The engine of a Slurm cluster: a job for each task, submitted by submitit.

Tasks with the same needs that are ready together are one array of jobs. The jobs report through
files in the shared folder, and ``squeue`` tells of those that cannot.
"""

import hashlib
import io
import math
import os
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

from submitit import SlurmExecutor
from submitit.core.utils import JobPaths

from deeplab_bench.settings.cluster import SHARED, Cluster
from deeplab_bench.writing import DISK_FULL, describe_lack_of_room
from pipelines.stages import STAGES
from pipelines.sweep import node
from pipelines.sweep.engine import ASK_FOR_ROOM, EngineError
from pipelines.sweep.node import LOG_BYTES
from pipelines.sweep.slurm_job import Job, clear_reports, get_report_of_member, read_report
from pipelines.sweep.slurm_options import WARNING_SECONDS, make_parameters, read_options
from pipelines.sweep.slurm_queue import OVER, Queue, State, join_lines
from pipelines.sweep.task import Ended, Event, Needs, Queued, Task, get_profile

FOLDER = Path("logs") / "slurm"
POLL_SECONDS = 0.5
ASK_SECONDS = 3.0  # between questions to Slurm, which has others to serve
RETRY_SECONDS = 30.0
NO_ANSWER = ("Unable to contact", "timed out", "temporarily", "Zero Bytes", "standby mode")
LIMIT = "accounting/QOS policy"  # which other jobs of the sweep may have used up
RESULT_SECONDS = 60.0  # until a shared disk shows every machine what a job wrote at its end
MEMBER_SECONDS = 60.0  # until the first machine of a job tells why another has failed
MOST_IN_ARRAY = 1000  # Slurm's default limit
# A training goes on where it was, and so may need its time limit any number of times. Any other
# stage begins anew, and would again not end.
RESTARTS_FROM_ZERO = 2
CLOCK_SECONDS = 30  # Slurm looks at time limits as often as that
GONE = "GONE"  # Slurm remembers a job for some minutes alone


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
        self.options = read_options(cluster.slurm)
        self.most = most
        folder = hashlib.sha256(str(Path.cwd()).encode()).hexdigest()
        self.queue = Queue(f"deeplab-bench-{folder[:8]}")
        self.waiting: list[Task] = []
        self.submitted: dict[str, Submitted] = {}
        self.jobs: set[str] = set()  # all that were submitted as they should
        # Machines that lack what tasks need, by profile: one may have the data of another alone.
        self.refusing: dict[str, set[str]] = {}
        self.has_begun = False
        self.asked_at = self.retry_at = -math.inf
        self.said = ""  # why tasks that could be submitted wait
        self.reasons: set[str] = set()  # why jobs wait, of those that were told

    def take_over(self) -> list[Ended]:
        """End the jobs of a killed driver, and return what has ended well.

        Nobody else's are in the queue: the driver has DVC's lock.
        """
        left = self.queue.list_left()
        if left is None:
            raise EngineError("Slurm does not answer any longer: begin again when it does")
        self.has_begun = True
        if left:
            print(
                f"warning: {len(left)} jobs of a sweep whose driver was killed are still in the "
                "queue; they are asked to end first",
                file=sys.stderr,
            )
            self.queue.end_all()
        return clear_reports(FOLDER)

    def check(self, needs: Needs) -> None:
        """Check that a time limit leaves time for work; Slurm itself checks the rest."""
        limit = make_parameters(self.options, needs)["time"]
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
        self.queue.end_all()
        events = [read_report(one.report, one.job) for one in self.submitted.values()]
        self.submitted.clear()
        return [event for event in events if isinstance(event, Ended)]

    def close(self) -> None:
        if self.has_begun:
            self.queue.cancel_all()

    def _submit_waiting(self) -> list[Event]:
        """Submit all that waits, and return the ends of what Slurm refuses."""
        if self.retry_at > -math.inf and self._cancel_half_submitted() != []:
            return []
        alike: dict[tuple[Needs, int | None, frozenset[str]], list[Task]] = {}
        for task in self.waiting:
            needs = replace(task.needs, expected_memory_mib=None)  # which Slurm is not told
            excluded = frozenset(self.refusing.get(get_profile(task.name), ()))
            alike.setdefault((needs, count_restarts(task), excluded), []).append(task)
        refused: list[Event] = []
        for (needs, restarts, excluded), tasks in alike.items():
            executor = self.make_executor(needs, excluded)
            for first in range(0, len(tasks), MOST_IN_ARRAY):
                part = tasks[first : first + MOST_IN_ARRAY]
                refused += self._submit_array(executor, restarts, part)
        return refused

    def _submit_array(
        self, executor: SlurmExecutor, restarts: int | None, tasks: Sequence[Task]
    ) -> Sequence[Event]:
        try:
            for task in tasks:
                get_report(task).unlink(missing_ok=True)  # of an earlier sweep
            with redirect_stderr(io.StringIO()), executor.batch():  # the error has what is said
                jobs = [
                    executor.submit(Job(task, str(get_report(task).absolute()), restarts))
                    for task in tasks
                ]
        except (OSError, RuntimeError) as error:
            if self._cancel_half_submitted() is None:
                return []
            return self._take_failure(tasks, error)
        self.said = ""
        for task, job in zip(tasks, jobs, strict=True):
            self.waiting.remove(task)
            self.jobs.add(job.job_id)
            self.submitted[task.name] = Submitted(task, job.job_id)
        return []

    def _take_failure(self, tasks: Sequence[Task], error: Exception) -> Sequence[Event]:
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
        said = f"Slurm refuses a job with {tasks[0].needs}: {said}"
        return [Ended(task.name, "", 1, 0.0, said) for task in tasks]

    def _retry(self, why: str) -> None:
        """Submit later what waits, and say why, once."""
        self.retry_at = time.monotonic() + RETRY_SECONDS
        if why != self.said:
            self.said = why
            print(why, file=sys.stderr)

    def _cancel_half_submitted(self) -> list[str] | None:
        """Cancel jobs that Slurm has got, but whose submission has failed after that.

        Returns those that were still there, or None if Slurm does not answer. In both cases what
        waits is to wait longer: two jobs must not do one task.
        """
        left = self.queue.list_left()
        if left is None:
            self._retry(f"warning: squeue fails; it is tried again every {RETRY_SECONDS:.0f} s")
            return None
        half_submitted = [job for job in left if job not in self.jobs]
        for job in half_submitted:
            self.queue.cancel(job)
            self.retry_at = time.monotonic() + ASK_SECONDS
        return half_submitted

    def make_executor(self, needs: Needs, excluded: Collection[str] = ()) -> SlurmExecutor:
        executor = SlurmExecutor(FOLDER)
        executor.update_parameters(
            job_name=self.queue.name,
            array_parallelism=MOST_IN_ARRAY,
            **make_parameters(self.options, needs, excluded),
        )
        return executor

    def _look(self) -> list[Event]:
        """Return what is new of all tasks."""
        states = self.queue.ask_states()
        if states is None:  # Slurm's controller does not answer; the jobs go on
            return []
        states |= self.queue.ask_accounting(
            [one.job for one in self.submitted.values() if one.job not in states]
        )
        self._tell_reasons(states)
        events = []
        for one in list(self.submitted.values()):
            event = self._look_at(one, states.get(one.job, State(GONE)))
            if event is not None and event != one.told:
                one.told = event
                events.append(event)
            if isinstance(event, Ended):
                del self.submitted[one.task.name]
                if event.refused:
                    self.refusing.setdefault(get_profile(event.name), set()).add(event.node)
                if event.status != 0:  # no part of the job may go on, or begin again
                    self.queue.cancel(one.job)
        return events

    def _tell_reasons(self, states: Mapping[str, State]) -> None:
        """Say why jobs wait, once for each reason, if it is for more than their turn."""
        for one in self.submitted.values():
            state = states.get(one.job, State(GONE))
            reason = state.unusual_reason
            if reason and reason not in self.reasons:
                self.reasons.add(reason)
                said = f"its job {one.job} waits, as Slurm says: {state.reason}"
                print(f"warning: {one.task.name}: {said}", file=sys.stderr)

    def _look_at(self, one: Submitted, state: State) -> Event | None:
        if state.is_held:
            said = f"Slurm holds its job {one.job} ({state.name}: {state.reason})"
            return Ended(one.task.name, "", None, 0.0, said)
        if state.waits_for_ever:
            said = (
                f"it needs {one.task.needs}, and its job would wait for ever ({state.reason}): "
                "change profile.<name>.resources or cluster.slurm in params.yaml"
            )
            return Ended(one.task.name, "", 1, 0.0, said)
        if state.waits:
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
        return describe_loss(one, state)


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
