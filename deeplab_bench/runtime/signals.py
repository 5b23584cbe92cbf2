"""Signals that ask a process to end: what it is doing is finished first."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class EndRequest:
    """Notes the signal that has asked for the end in ``number``; a second SIGINT ends at once."""

    def __init__(self, say: Callable[[], None]) -> None:
        self.number: int | None = None
        self.say = say
        self.process = os.getpid()

    def note(self, number: int, _: Any) -> None:
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
        if os.getpid() == self.process:  # its children inherit the handler
            self.say()


@contextmanager
def noted_end_request(say: Callable[[], None]) -> Iterator[EndRequest]:
    """Note in the block that SIGINT or SIGTERM asks for its end, and ``say`` what comes then."""
    request = EndRequest(say)
    before = {number: signal.signal(number, request.note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
