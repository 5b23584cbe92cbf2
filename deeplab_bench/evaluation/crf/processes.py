"""A function over many items in worker processes, in order and in bounded memory."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import TypeVar

from deeplab_bench.errors import UserError

IN_FLIGHT = 2  # items per worker: one at work, one waiting for it

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(UserError):
    """A worker process was ended; the message says what to do."""


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """The function's results in the order of the items, which are drawn as workers become free.

    The workers start anew rather than as copies of this process, so that they hold nothing of its
    threads and GPU. What the function raises is raised here; the workers end with the iteration.

    Raises:
        WorkerError: a worker was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_follow_parent)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == IN_FLIGHT * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise WorkerError(
            f"one of {workers} worker processes was ended, perhaps for want of memory: "
            "free some and run `dvc repro` again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def available_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _follow_parent() -> None:
    """Leave interrupts to the parent, and end when it ends in whatever way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
