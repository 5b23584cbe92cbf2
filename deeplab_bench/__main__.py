"""``deeplab-bench COMMAND [ARGUMENT ...]``, or ``python -m deeplab_bench``: every way in."""

import sys

from pipelines.stages import STAGES
from pipelines.warm import delegate, die_with_parent


def main() -> None:
    command = sys.argv[1:]
    if command and command[0] in STAGES:
        die_with_parent()
    status = delegate(command)
    if status is None:
        # Not at the top: it imports what the command needs, which a warm process has at hand.
        from deeplab_bench.command_line import run

        status = run(command)
    sys.exit(status)


if __name__ == "__main__":
    main()
