"""Errors that the user can act on."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """An error whose message is one line: what is wrong and what to do."""


def suggest_nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest the nearest valid name, as the end of a message."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    return f"; the nearest valid one is {close[0]!r}" if close else ""
