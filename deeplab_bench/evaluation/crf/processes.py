"""A parallel map over many items in worker processes, in order and in bounded memory."""

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

IN_FLIGHT = 2  # items per worker: it works on one, the other waits

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerError(UserError):
    """A worker process was killed; the message says what to do."""


def map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield the function's results in the order of the items.

    Items are taken as workers become free. The workers are spawned, not forked, so that they share
    no threads and no GPU with this process; they end with the iteration. Errors of the function are
    raised here.

    Raises:
        WorkerError: a worker was killed.
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
            f"one of {workers} worker processes was killed, perhaps for lack of memory: "
            "free some memory and run `dvc repro` again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def count_available_cpus() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _follow_parent() -> None:
    """Ignore interrupts, which the parent handles, and end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
