"""Runs of stages side by side: one on each GPU, or several on the cores of a CPU.

``dvc repro`` runs one stage after another. Here a driver starts the commands itself and records
with DVC what ended well, as ``dvc repro`` does. It alone writes dvc.lock. It holds DVC's lock, so
that no other DVC starts the same run. The output of a run is in ``logs/<run>.log``.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.dvc_runs import (
    DVCError,
    get_environment,
    list_recorded_runs,
    list_stale_runs,
    locked_repository,
    prepare,
    record,
    run_dvc,
    secure_lock_file,
    sort_recorded_runs,
    take_outputs,
)
from pipelines.stages import STAGES
from pipelines.warm import OUT_OF_MEMORY

LOGS = Path("logs")
TAIL_LINES = 20
POLL_SECONDS = 0.1
# Writing dvc.lock takes a second of a core, so finished runs are recorded together.
RECORD_SECONDS = 20.0


def reproduce(jobs: int) -> int:
    """Run all stages that are due, ``jobs`` side by side where possible.

    Returns 0, or the exit status of ``dvc repro``, or 1 if a run beside others failed.

    Raises:
        DVCError: DVC refuses to begin.
    """
    with locked_repository():  # else another DVC might be writing it
        secure_lock_file()
    lanes = list_lanes(jobs)
    if len(lanes) > 1 and not run_waves(lanes):
        return 1
    status = run_dvc("repro").returncode
    secure_lock_file()
    return status


def list_lanes(jobs: int) -> list[dict[str, str]]:
    """List what the environments of runs at a time have of their own.

    They are at most one a GPU. Without a GPU they are as many as asked for.
    """
    gpus = list_gpus()
    return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus[:jobs]] if gpus else [{}] * jobs


def list_gpus() -> list[str]:
    """List the GPUs as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch  # takes seconds

    return [str(index) for index in range(torch.cuda.device_count())]


def run_waves(lanes: Sequence[Mapping[str, str]]) -> bool:
    """Run the stages that may run side by side; return False if one of them failed."""
    waves = sorted({stage.wave for stage in STAGES.values() if stage.wave is not None})
    with locked_repository() as repo:
        recorded = list_recorded_runs(repo)
        try:
            for wave in waves:
                stages = [name for name, stage in STAGES.items() if stage.wave == wave]
                runs = list_stale_runs(repo, stages)
                if runs and not SideBySide(runs, lanes).run():
                    return False
        finally:
            sort_recorded_runs(repo, recorded)
    return True


@dataclass
class Child:
    """A run whose command is running."""

    run: Any
    process: "subprocess.Popen[bytes]"
    log: Path
    started: float


class SideBySide:
    """Runs that need nothing of each other, as many at a time as there are lanes.

    After a failure nothing new starts. What ended well is recorded, even if this is interrupted.
    """

    def __init__(self, runs: Sequence[Any], lanes: Sequence[Mapping[str, str]]) -> None:
        self.waiting = deque(runs)
        self.lanes = lanes
        self.children: dict[int, Child] = {}
        self.unrecorded: list[Any] = []
        self.recorded_at = time.monotonic()
        self.failed = False
        self.bar = tqdm(total=len(runs), unit="run", dynamic_ncols=True, mininterval=1, miniters=0)

    def run(self) -> bool:
        """Run all, and return whether all ended well."""
        try:
            while self.children or self.waiting:
                self.start_children()
                self.show_children()
                self.record_after_a_while()
                time.sleep(POLL_SECONDS)
                self.collect_children()
        finally:
            self.end_children()
            record(self.unrecorded)
            self.bar.close()
        return not self.failed

    def start_children(self) -> None:
        for lane, environment in enumerate(self.lanes):
            while self.waiting and lane not in self.children:
                run = self.waiting.popleft()
                try:
                    known = prepare(run)
                except DVCError as error:
                    self.fail(run, str(error))
                    continue
                if known:
                    self.finish(run, "was in the cache")
                else:
                    self.children[lane] = start(run, environment)

    def collect_children(self) -> None:
        for lane, child in list(self.children.items()):
            status = child.process.poll()
            if status is None:
                continue
            del self.children[lane]
            seconds = f"{time.monotonic() - child.started:.1f} s"
            if status == 0:
                self.finish(child.run, seconds)
            else:
                said = f"{describe_end(status)} after {seconds}. The end of {child.log}:"
                self.fail(child.run, "\n".join([said, *read_tail(child.log)]))

    def finish(self, run: Any, how: str) -> None:
        try:
            take_outputs(run)
        except DVCError as error:
            self.fail(run, str(error))
            return
        self.unrecorded.append(run)
        self.bar.update()
        tqdm.write(f"{run.addressing}: {how}")

    def fail(self, run: Any, why: str) -> None:
        self.failed = True
        self.waiting.clear()
        tqdm.write(f"error: {run.addressing}: {why}", file=sys.stderr)

    def show_children(self) -> None:
        names = ", ".join(child.run.addressing for child in self.children.values())
        self.bar.set_postfix_str(names, refresh=False)
        self.bar.update(0)

    def record_after_a_while(self) -> None:
        if time.monotonic() - self.recorded_at > RECORD_SECONDS:
            record(self.unrecorded)
            self.unrecorded.clear()
            self.recorded_at = time.monotonic()

    def end_children(self) -> None:
        """End the children that still run, as this is interrupted; some may end well."""
        for child in self.children.values():
            child.process.terminate()
        for child in self.children.values():
            if child.process.wait() == 0:
                self.finish(child.run, "ended well")


def start(run: Any, environment: Mapping[str, str]) -> Child:
    """Start the command of a run as ``dvc repro`` does, but with its output in a file.

    No shell is between them: it would outlive a killed driver, and its child with it.
    """
    LOGS.mkdir(exist_ok=True)
    log = LOGS / f"{run.addressing}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            shlex.split(run.cmd),
            cwd=run.wdir,
            env=get_environment() | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return Child(run, process, log, time.monotonic())


def describe_end(status: int) -> str:
    """Describe the exit status of a command that failed; a negative one is a signal's number."""
    if status >= 0:
        return f"exited with {status}"
    hint = f" ({OUT_OF_MEMORY})" if status == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-status).name}{hint}"


def read_tail(log: Path) -> list[str]:
    """Read the last lines of a log; of a progress bar, which writes over itself, the last state."""
    lines = log.read_bytes().decode(errors="replace").rstrip().split("\n")
    return [line.rpartition("\r")[2] for line in lines[-TAIL_LINES:]]
