"""The engine of one machine: a task on each GPU, or some tasks on the cores of a CPU."""

import os
import queue
import threading
from collections.abc import Sequence

from pipelines.sweep import node
from pipelines.sweep.engine import EngineError
from pipelines.sweep.task import Ended, Event, Needs, Task
from pipelines.sweep.torchrun import add_torchrun

POLL_SECONDS = 0.2


class LocalEngine:
    """Runs ``jobs`` tasks at a time; with ``gpus`` at most one on each."""

    def __init__(self, jobs: int, gpus: Sequence[str] = ()) -> None:
        self.free: list[str | None] = [*gpus[:jobs]] if gpus else [None] * jobs
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.stopping = threading.Event()

    def take_over(self) -> list[Ended]:
        return []  # tasks end with their driver

    def check(self, needs: Needs) -> None:
        if needs.nodes > 1:
            raise EngineError(
                f"it needs {needs}, and this is one machine: give --cluster, or set nodes to 1 in "
                "profile.<name>.resources in params.yaml"
            )

    def has_room(self) -> bool:
        return bool(self.free)

    def submit(self, task: Task) -> None:
        lane = self.free.pop(0)
        arguments = (add_torchrun(task), lane)
        thread = threading.Thread(target=self._run, args=arguments, name=task.name)
        self.threads.append(thread)
        thread.start()

    def _run(self, task: Task, lane: str | None) -> None:
        try:
            for event in node.run(task, lane, self.stopping.is_set):
                self._tell(event, lane)
        except OSError as error:
            self._tell(Ended(task.name, "", 1, 0.0, f"cannot be run: {error}"), lane)

    def _tell(self, event: Event, lane: str | None) -> None:
        if isinstance(event, Ended):
            self.free.append(lane)
        self.events.put(event)

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
        for thread in self.threads:
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
