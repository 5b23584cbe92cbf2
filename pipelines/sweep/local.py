"""The engine of one machine: a task on each GPU, or some tasks on the cores of a CPU."""

import os
import queue
import threading
from collections.abc import Collection

from pipelines.sweep import node
from pipelines.sweep.engine import EngineError
from pipelines.sweep.task import Ended, Event, Needs, Task

POLL_SECONDS = 0.2


class LocalEngine:
    """Runs ``jobs`` tasks at a time; with GPUs at most one on each."""

    def __init__(self, jobs: int) -> None:
        gpus = list_gpus()
        self.free: list[str | None] = [*gpus[:jobs]] if gpus else [None] * jobs
        self.slots = len(self.free)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.threads: dict[str, threading.Thread] = {}
        self.stopping = threading.Event()

    def check(self, needs: Collection[Needs]) -> None:
        most = max((need.nodes for need in needs), default=1)
        if most > 1:
            raise EngineError(
                f"a training is to run on {most} machines, and this is one: give --cluster, or set "
                "cluster.nodes to 1"
            )

    def has_room(self) -> bool:
        return bool(self.free)

    def submit(self, task: Task) -> None:
        lane = self.free.pop(0)
        thread = threading.Thread(target=self._run, args=(task, lane), name=task.name)
        self.threads[task.name] = thread
        thread.start()

    def _run(self, task: Task, lane: str | None) -> None:
        try:
            for event in node.run(task, lane, self.stopping.is_set):
                if isinstance(event, Ended):
                    self.free.append(lane)
                    del self.threads[task.name]
                self.events.put(event)
        except OSError as error:
            self.free.append(lane)
            self.events.put(Ended(task.name, "", 1, 0.0, f"cannot be run: {error}"))

    def poll(self) -> list[Event]:
        events = []
        try:
            events.append(self.events.get(timeout=POLL_SECONDS))
            while True:
                events.append(self.events.get_nowait())
        except queue.Empty:
            return events

    def stop(self) -> list[Event]:
        self.stopping.set()
        for thread in list(self.threads.values()):
            thread.join()
        return self.poll()

    def close(self) -> None:
        pass


def list_gpus() -> list[str]:
    """List the GPUs as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name]
    import torch  # takes seconds

    return [str(index) for index in range(torch.cuda.device_count())]
