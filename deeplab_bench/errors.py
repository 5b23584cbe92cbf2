"""Errors that the user can act on."""

import difflib
from collections.abc import Iterable

from pydantic import ValidationError


class UserError(Exception):
    """An error whose message is one line: what is wrong and what to do."""


def suggest_nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest the nearest valid name, as the end of a message."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    return f"; the nearest valid one is {close[0]!r}" if close else ""


def describe_first_error(error: ValidationError) -> str:
    """Describe what is wrong in a file: the first key and why its value does not fit."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "its content"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}"
