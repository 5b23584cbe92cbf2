"""The command line: ``deeplab-bench COMMAND [ARGUMENT ...]`` or ``python -m deeplab_bench``."""

import sys

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.runtime.pins import pin_process
from pipelines.stages import STAGES
from pipelines.warm import delegate, die_with_parent


def main() -> None:
    command = sys.argv[1:]
    if command and command[0] in STAGES:
        die_with_parent()
        if len(command) > 1 and not STAGES[command[0]].cold:
            pin_process(ProfileFiles(command[1]).process_settings)
    status = delegate(command)
    if status is None:
        # Imported only here: it takes time, and a warm process has imported it already.
        from deeplab_bench.command_line import run

        status = run(command)
    sys.exit(status)


if __name__ == "__main__":
    main()
