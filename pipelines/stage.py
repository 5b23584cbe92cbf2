"""What the stage scripts share."""

import argparse
import ctypes
import signal
import sys
from collections.abc import Callable

from deeplab_bench.errors import UserError

PR_SET_PDEATHSIG = 1


def run(stage: Callable[..., None], *arguments: str) -> None:
    """Call a stage with the command line's arguments; a user's error is one line and exit 1."""
    die_with_parent()
    parser = argparse.ArgumentParser(description=stage.__doc__)
    for name in arguments:
        parser.add_argument(name, type=int if name == "seed" else str)
    try:
        stage(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(f"error: {error}")


def die_with_parent() -> None:
    """Be terminated when the process that started this one is killed, on Linux.

    Otherwise a killed ``dvc repro`` leaves its stage at work, and the next starts a second one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
