"""What Slurm's programs say of the jobs of a sweep, and are told about them."""

import math
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from pipelines.sweep import node
from pipelines.sweep.engine import EngineError

PROGRAMS = ("sbatch", "scancel", "scontrol", "squeue", "srun")
POLL_SECONDS = 0.5
END_SECONDS = node.END_SECONDS + 30
SIGNAL_SECONDS = 10.0
KILL_SECONDS = 60.0
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
# Reasons of waiting that end by themselves, as soon as others have had their turn.
USUAL = ("None", "Resources", "Priority", "BeginTime", "Cleaning", "JobArrayTaskLimit", "Prolog")


class State(NamedTuple):
    """What Slurm says of a job."""

    name: str
    machine: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        return self.name in QUEUED

    @property
    def waits_for_ever(self) -> bool:
        return self.waits and self.reason in FOR_EVER

    @property
    def is_held(self) -> bool:
        """Whether Slurm holds a job that waits, of its own accord."""
        reason = self.reason.replace("_", " ")
        return self.name in HELD or (self.waits and any(hold in reason for hold in HOLDS))

    @property
    def unusual_reason(self) -> str:
        """Why a job waits that may begin some time, if it is not for its turn; else empty."""
        if not self.waits or self.waits_for_ever or self.is_held:
            return ""
        reason = self.reason.partition(",")[0]  # names of machines may follow
        return "" if reason in USUAL else reason


class Queue:
    """The jobs of Slurm that have one name, and are of this user.

    Raises:
        EngineError: Slurm is not here, or does not answer.
    """

    def __init__(self, name: str) -> None:
        missing = [program for program in PROGRAMS if shutil.which(program) is None]
        if missing:
            raise EngineError(
                f"Slurm's program {missing[0]} is not on the PATH: run this on a login node"
            )
        self.name = name
        self.selection = f"--user={pwd.getpwuid(os.geteuid()).pw_name}", f"--name={name}"
        self.has_accounting = shutil.which("sacct") is not None
        answer = ask("squeue", *self.selection)
        if answer.returncode:
            raise EngineError(f"Slurm does not answer: {join_lines(answer.stderr)}")

    def ask_states(self) -> dict[str, State] | None:
        """Ask Slurm for the states of all jobs; None if it does not answer."""
        form = ("--array", "--noheader", "--states=all", "--format=%i|%T|%N|%r")
        done = ask("squeue", *self.selection, *form)
        if done.returncode:
            return None
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return {job: State(*state) for job, *state in rows}

    def ask_accounting(self, jobs: Sequence[str]) -> dict[str, State]:
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

    def list_left(self) -> list[str] | None:
        """List the jobs that are not over; None if Slurm does not answer."""
        states = self.ask_states()
        if states is None:
            return None
        return [job for job, state in states.items() if state.name not in OVER]

    def cancel(self, job: str) -> None:
        ask("scancel", job)

    def cancel_all(self) -> None:
        ask("scancel", *self.selection)

    def end_all(self) -> None:
        """Cancel what waits, and let what runs save its state and end."""
        deadline = time.monotonic() + END_SECONDS
        signal_at = -math.inf
        while self.list_left() != [] and time.monotonic() < deadline:
            ask("scancel", *self.selection, "--state=PENDING")
            if time.monotonic() > signal_at:  # again, for a job that had not yet begun to listen
                signal_at = time.monotonic() + SIGNAL_SECONDS
                to_what_runs = ("--state=RUNNING", f"--signal={signal.SIGTERM.name}")
                ask("scancel", *self.selection, *to_what_runs)
            time.sleep(POLL_SECONDS)
        self.cancel_all()
        deadline = time.monotonic() + KILL_SECONDS
        while self.list_left() != [] and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def ask(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, input="", capture_output=True, text=True, check=False)


def join_lines(message: str) -> str:
    """Join what a program of Slurm says to one line."""
    lines = [
        line.removeprefix("sbatch: ").removeprefix("error: ")
        for line in message.strip().splitlines()
    ]
    return "; ".join(lines)
