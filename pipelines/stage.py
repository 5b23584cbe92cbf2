"""What the stage scripts share."""

import argparse
import sys
from collections.abc import Callable

from deeplab_bench.errors import UserError


def run(stage: Callable[..., None], *arguments: str) -> None:
    """Call a stage with the command line's arguments; a user's error is one line and exit 1."""
    parser = argparse.ArgumentParser(description=stage.__doc__)
    for name in arguments:
        parser.add_argument(name, type=int if name == "seed" else str)
    try:
        stage(**vars(parser.parse_args()))
    except UserError as error:
        sys.exit(f"error: {error}")
