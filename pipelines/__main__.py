"""``python -m pipelines STAGE [ARGUMENT ...]``: run a stage, as dvc.yaml does."""

import sys

from pipelines.warm import delegate, die_with_parent


def main() -> None:
    die_with_parent()
    code = delegate(sys.argv[1:])
    if code is None:
        # Here, as it imports all that a stage needs, which a warm process has at hand.
        from pipelines.stage import run

        code = run(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
