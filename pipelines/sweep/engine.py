"""What the driver of a sweep asks an engine for."""

from typing import Protocol

from deeplab_bench.errors import UserError
from pipelines.sweep.task import Ended, Event, Needs, Task

ASK_FOR_ROOM = "make room on the disk, and the sweep goes on; what is done is not lost"


class EngineError(UserError):
    """An engine cannot begin or go on; the message says what to do."""


class Engine(Protocol):
    """Runs tasks where there is room for them."""

    def take_over(self) -> list[Ended]:
        """End the tasks of a driver that was killed, and return the ends of those that are done.

        Raises:
            EngineError: the engine cannot begin.
        """

    def check(self, needs: Needs) -> None:
        """Check that there are machines that are large enough for a task.

        Raises:
            EngineError: there are none.
        """

    def has_room(self) -> bool:
        """Tell whether a further task would start soon."""

    def submit(self, task: Task) -> None:
        """Give a task to a machine."""

    def poll(self) -> list[Event]:
        """Wait for a moment; return what the tasks tell. A task that has ended is forgotten."""

    def stop(self) -> list[Event]:
        """Ask all tasks to end, and return what they told at last."""

    def close(self) -> None:
        """Leave the machines."""
