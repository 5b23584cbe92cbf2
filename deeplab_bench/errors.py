"""The errors that whoever runs the benchmark can act on."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Its message is one line that says what is wrong and what to do."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of a message on a name that is none of the valid ones."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    return f"; the nearest valid one is {close[0]!r}" if close else ""
