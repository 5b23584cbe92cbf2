"""Errors that the user can act on."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

from pydantic import ValidationError

TRY_AGAIN = 75  # the exit status of a command that another moment may let succeed (sysexits.h)
# torch goes on to say how the file can be loaded all the same.
REFUSED_BY_TORCH = re.compile(r"Weights only load failed.*", re.DOTALL)
NOT_TENSORS = "it holds more than tensors, and could run a program: save a state_dict alone"


class UserError(Exception):
    """An error whose message is one line: what is wrong and what to do.

    A command that raises it ends with ``exit_status``.
    """

    exit_status = 1

    def __str__(self) -> str:
        return REFUSED_BY_TORCH.sub(NOT_TENSORS, super().__str__())


REMEDIES = {
    errno.ENOSPC: "make room on the disk and run again",
    errno.EDQUOT: "make room in your quota and run again",
    errno.EFBIG: "allow larger files and run again",
    errno.EROFS: "run in a folder that can be written",
    errno.EACCES: "allow to read and write it, and run again",
    errno.EPERM: "allow to read and write it, and run again",
    errno.EMFILE: "allow more open files (ulimit -n) and run again",
    errno.EIO: "check the disk and run again",
}


def describe_machine_error(error: Exception) -> str | None:
    """Describe an error that the machine is the reason of, with what to do; None for others."""
    if isinstance(error, OSError) and error.errno in REMEDIES:
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{os.strerror(error.errno)}; {REMEDIES[error.errno]}"
    # torch has a class for the GPU's memory alone, and importing it takes seconds.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    ):
        return (
            "out of memory; lower training.batch_size or training.crop_size, or end other programs"
        )
    return None


def suggest_nearest(name: str, valid: Iterable[str]) -> str:
    """Suggest the nearest valid name, as the end of a message."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.0)
    return f"; the nearest valid one is {close[0]!r}" if close else ""


def describe_first_error(error: ValidationError) -> str:
    """Describe what is wrong in a file: the first key and why its value does not fit."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "its content"
    if first["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}"
