"""A stage by its name: the arguments of its ``main`` from the command line, one call."""

import argparse
import inspect
import sys
from collections.abc import Sequence
from importlib import import_module

from deeplab_bench.errors import UserError
from deeplab_bench.runtime import distributed

STAGES = (
    "configure",
    "download",
    "prepare",
    "train",
    "evaluate",
    "infer",
    "crf",
    "audit",
    "receptive_field",
    "speed",
    "atrous",
    "report",
)
COMMANDS = (*STAGES, "select_profile")
# Those that several processes can do together.
SHARED = ("train", "evaluate", "infer")


def run(command: Sequence[str]) -> int:
    """Run ``[stage, argument, ...]``; a user's error is one line and the exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m pipelines")
    choices = parser.add_subparsers(metavar="STAGE", required=True)
    asked = [name for name in COMMANDS if name in command[:1]]
    for name in asked or COMMANDS:
        main = import_module(f"pipelines.{name}").main
        stage = choices.add_parser(name, help=inspect.getdoc(sys.modules[main.__module__]))
        stage.set_defaults(main=main)
        for argument, parameter in inspect.signature(main).parameters.items():
            stage.add_argument(argument, type=parameter.annotation)
    chosen = vars(parser.parse_args(command))
    try:
        with distributed.process_group():
            if distributed.world_size() > 1 and command[0] not in SHARED:
                raise UserError(f"{command[0]} runs in one process: run it without torchrun")
            chosen.pop("main")(**chosen)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
