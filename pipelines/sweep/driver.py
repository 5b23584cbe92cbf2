"""The driver of a sweep: it starts runs as soon as what they need is there, and records them.

It alone talks to DVC, and holds DVC's lock, so that no other DVC starts the same run. dvc.lock has
one writer, and is afterwards as ``dvc repro`` would have written it.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from deeplab_bench.errors import UserError
from deeplab_bench.runtime.signals import EndRequest, noted_end_request
from deeplab_bench.writing import DISK_FULL, describe_lack_of_room
from pipelines.dvc_runs import (
    ROOM_BYTES,
    DVCError,
    count_output_bytes,
    digest_inputs,
    has_outputs,
    list_recorded_runs,
    locked_repository,
    prepare,
    record,
    secure_lock_file,
    sort_recorded_runs,
    take_outputs,
)
from pipelines.stages import STAGES
from pipelines.sweep.board import Board
from pipelines.sweep.engine import ASK_FOR_ROOM, Engine, EngineError
from pipelines.sweep.node import get_log
from pipelines.sweep.task import Ended, Event, Needs, Queued, Running, Task

# Writing dvc.lock takes a second of a core or more. It is written as soon as the work that would be
# lost otherwise took so many times as long; so a training is recorded at once.
WORTH = 20
PAUSE = 4  # times as long as it took, until it is written again
FIRST_WRITING_SECONDS = 1.0
CHECK_SECONDS = 0.5  # at a time, so that the board goes on
ENDING = "the runs under way are asked to end; press Ctrl-C again to end at once"
ROOM_SECONDS = 3.0
POLL_SECONDS = 0.5
MOST_LOSSES = 10  # of one run; then something is wrong with it and not with the machines
T = TypeVar("T")


class TaskMaker(Protocol):
    """Makes tasks of runs of DVC, and brings back what they have made."""

    def find_needs(self, run: Any) -> Needs: ...

    def make(self, run: Any, needs: Needs) -> Task: ...

    def collect(self, task: Task, ended: Ended) -> None: ...


def sweep(engine: Engine, tasks: TaskMaker, board: Board) -> bool:
    """Run all stages that are due; return whether all ended well.

    A run that fails holds up those that need it, and no other.

    If SIGINT or SIGTERM asks for it, the runs under way end, and what has ended well is recorded.

    Raises:
        DVCError: DVC refuses to begin.
        EngineError: the engine cannot begin or go on.
        SystemExit: a signal has asked for the end.
    """
    with noted_end_request(lambda: board.complain(ENDING, "yellow")) as end:
        with locked_repository():  # else another DVC might be writing it
            secure_lock_file()
        with locked_repository() as repo:
            all_is_well = Driver(repo, engine, tasks, board, end).run()
    if end.number is not None:
        raise SystemExit(128 + end.number)
    return all_is_well


class Driver:
    """The runs of a repository on their way.

    ``waiting`` has, for each run that cannot begin yet, the runs that it needs. ``ready`` are those
    that have all they need, ``stale`` those of them that are to run, ``begun`` those that the
    engine has, by name.
    """

    def __init__(
        self, repo: Any, engine: Engine, tasks: TaskMaker, board: Board, end: EndRequest
    ) -> None:
        self.repo, self.engine, self.tasks, self.board, self.end = repo, engine, tasks, board, end
        self.recorded_before = list_recorded_runs(repo)
        self.needed_by: Mapping[Any, Iterable[Any]] = repo.index.graph.pred
        needs: Mapping[Any, Iterable[Any]] = repo.index.graph.succ
        self.waiting = {run: set(needs[run]) for run in repo.index.stages if needs[run]}
        self.ready = deque(run for run in repo.index.stages if not needs[run])
        self.stale: list[Any] = []
        self.begun: dict[str, tuple[Any, Task]] = {}
        self.left: dict[str, Ended] = {}  # by digest, what an earlier driver has not recorded
        self.losses: Counter[str] = Counter()
        self.unrecorded: list[Any] = []
        self.unrecorded_seconds = 0.0  # of work
        self.writing_seconds, self.written_at = FIRST_WRITING_SECONDS, time.monotonic()
        board.begin([run.addressing for run in repo.index.stages])

    def run(self) -> bool:
        """Run all, and return whether all ended well."""
        try:
            self.left = {ended.digest: ended for ended in self.engine.take_over()}
            while (self.ready or self.stale or self.begun) and self.end.number is None:
                self.check_ready_runs()
                self.begin_stale_runs()
                if self.begun:
                    self.take(self.engine.poll())
                self.board.show()
                self.record_what_is_worth_it()
        finally:
            try:
                self.take(self.engine.stop())
            finally:
                try:
                    self.with_room(self.finish_lock_file)
                finally:
                    self.board.end()
        return not self.board.failed

    def check_ready_runs(self) -> None:
        deadline = time.monotonic() + CHECK_SECONDS
        while self.ready and time.monotonic() < deadline:
            run = self.ready.popleft()
            if run.status():
                self.stale.append(run)
            else:
                self.board.skip(run.addressing)
                self.release(run)

    def begin_stale_runs(self) -> None:
        deadline = time.monotonic() + CHECK_SECONDS
        while self.end.number is None and time.monotonic() < deadline:
            run = self.choose_next()
            if run is None:
                return
            self.stale.remove(run)
            try:
                needs = self.tasks.find_needs(run)
                self.engine.check(needs)
                ended = self.find_left(run)
                if ended or self.with_room(partial(prepare, run)):
                    self.finish(run, ended)
                    continue
                task = replace(self.tasks.make(run, needs), digest=digest_inputs(run))
            except UserError as error:
                self.board.fail(run.addressing, str(error))
                continue
            get_log(task).unlink(missing_ok=True)
            self.submit(run, task)

    def find_left(self, run: Any) -> Ended | None:
        """Find what an earlier driver has left of a run; None if anything has changed since."""
        ended = self.left.get(digest_inputs(run)) if self.left else None
        return ended if ended and has_outputs(run, ended.files) else None

    def submit(self, run: Any, task: Task) -> None:
        try:
            self.engine.submit(task)
        except EngineError as error:
            self.board.fail(task.name, str(error))
        else:
            self.begun[task.name] = run, task

    def choose_next(self) -> Any | None:
        """Choose the next run to begin; None if there is none, or no room for it.

        A run that measures a machine waits until no other can begin, and none is under way.
        """
        if not self.engine.has_room() or any(is_alone(run) for run, _ in self.begun.values()):
            return None
        beside = next((run for run in self.stale if not is_alone(run)), None)
        if beside is not None or self.begun or self.ready or not self.stale:
            return beside
        return self.stale[0]

    def take(self, events: Iterable[Event]) -> None:
        """Take what the engine tells."""
        for event in events:
            if isinstance(event, Queued):
                self.board.queue(event.name)
                continue
            if isinstance(event, Running):
                self.board.update(event)
                continue
            run, task = self.begun.pop(event.name)
            if event.status == 0:
                self.collect(run, task, event)
            elif self.end.number is not None:
                self.board.forget(event.name)
            elif event.status is None and self.losses[event.name] < MOST_LOSSES:
                self.losses[event.name] += 1
                self.board.lose(event)
                self.submit(run, task)
            else:
                self.board.fail(event.name, event.said)

    def collect(self, run: Any, task: Task, ended: Ended) -> None:
        try:
            self.with_room(lambda: self.tasks.collect(task, ended))
        except UserError as error:
            self.board.fail(task.name, str(error))
        else:
            self.finish(run, ended)

    def finish(self, run: Any, ended: Ended | None = None) -> None:
        """Take the outputs of a run that has ended well; without ``ended``, those of the cache."""
        try:
            self.with_room(lambda: take_outputs(run), count_output_bytes(run))
        except DVCError as error:
            self.board.fail(run.addressing, str(error))
            return
        self.unrecorded.append(run)
        self.unrecorded_seconds += ended.seconds if ended else 0.0
        self.board.finish(run.addressing, ended)
        self.release(run)

    def release(self, run: Any) -> None:
        """Make those runs ready that needed this one last."""
        for other in self.needed_by[run]:
            self.waiting[other].discard(run)
            if not self.waiting[other]:
                del self.waiting[other]
                self.ready.append(other)

    def record_what_is_worth_it(self) -> None:
        started = time.monotonic()
        if (
            self.unrecorded_seconds > WORTH * self.writing_seconds
            and started - self.written_at > PAUSE * self.writing_seconds
        ):
            self.with_room(lambda: record(self.unrecorded))
            self.written_at = time.monotonic()
            self.writing_seconds = self.written_at - started
            self.unrecorded.clear()
            self.unrecorded_seconds = 0.0

    def finish_lock_file(self) -> None:
        record(self.unrecorded)
        self.unrecorded.clear()
        sort_recorded_runs(self.repo, self.recorded_before)
        secure_lock_file()

    def with_room(self, work: Callable[[], T], needed_bytes: int = 0) -> T:
        """Do what needs room on the disk. If it is full, wait until there is as much as it needs.

        Raises:
            OSError: the disk is full, and a signal has asked for the end.
        """
        has_asked = False
        while True:
            try:
                return work()
            except OSError as error:
                if error.errno not in DISK_FULL or self.end.number is not None:
                    raise
                if not has_asked:
                    self.board.complain(f"error: {os.strerror(error.errno)}: {ASK_FOR_ROOM}", "red")
                    has_asked = True
                self.wait_for_room(needed_bytes + ROOM_BYTES)

    def wait_for_room(self, needed_bytes: int) -> None:
        """Wait until the disk has room, some seconds at least: a quota does not tell its own."""
        until = time.monotonic() + ROOM_SECONDS
        while self.end.number is None and (
            time.monotonic() < until or describe_lack_of_room(Path(), needed_bytes)
        ):
            time.sleep(POLL_SECONDS)


def is_alone(run: Any) -> bool:
    """Tell whether a run measures the machine, and so has it for itself."""
    stage = STAGES.get(run.addressing.partition("@")[0])
    return stage is not None and stage.cold
