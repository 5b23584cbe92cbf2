"""The commands. Each is a function ``main``, whose signature gives the arguments."""

import inspect
import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from types import UnionType
from typing import Any, get_args

from deeplab_bench.errors import UserError, describe_machine_error
from pipelines.stages import STAGES

TOOLS = {
    "repro": "regenerate every result that is out of date, and print the accuracy table",
    "plan": "say what is due and what it costs; train nothing",
    "select": "choose in params.yaml what `repro` runs",
    "table": "print the accuracy table",
    "trace": "say where a number of a table comes from, and check it",
    "cite": "print BibTeX, the table's line and a sentence for a report that cites a model",
    "dag": "draw the graph of the stages",
    "compare": "say which rows of the committed results changed between two versions, and why",
    "readme": "put the results into README.md",
    "verify": "make committed runs again in a clone, and say whether they come out the same",
    "predict": "write a trained model's classes of photographs, and pictures of them",
    "score": "score label files that another network predicted, as our own",
    "export": "write a trained network as ONNX or as a program of torch.export",
    "submit": "pack predictions of Pascal VOC's test images for its evaluation server",
}
EPILOG = "`deeplab-bench COMMAND --help` explains a command. A stage is what dvc.yaml runs."
TRACEBACK = "DEEPLAB_BENCH_TRACEBACK"  # where it is set, errors of the machine have a traceback


class PrintVersion(Action):
    """Prints the installed version, and ends."""

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        print(parser.prog, version(parser.prog))
        parser.exit()


def run(command: Sequence[str]) -> int:
    """Run ``[name, argument, ...]``; a user's error is one line and its exit status."""
    chosen = vars(build_parser(command).parse_args(command))
    main = chosen.pop("main")
    positional = chosen.pop(chosen.pop("variadic", ""), [])
    try:
        return call(command[0], lambda: main(*positional, **chosen)) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        described = describe_machine_error(error)
        if described is None or TRACEBACK in os.environ:
            raise
        print(f"error: {described}", file=sys.stderr)
        return 1


def call(name: str, main: Callable[[], int | None]) -> int | None:
    """Call a command. A stage may run in several processes, started by ``torchrun``."""
    if name not in STAGES:
        return main()
    from deeplab_bench.runtime import distributed  # imports torch, which the tools do not need

    with distributed.process_group():
        if distributed.world_size() > 1 and not STAGES[name].distributed:
            raise UserError(f"{name} runs in one process: run it without torchrun")
        return main()


def build_parser(command: Sequence[str]) -> ArgumentParser:
    """Build a parser that knows the arguments of the command at ``command[0]``.

    Only the module of this command is imported, since some imports take seconds.
    """
    helps = {name: stage.help for name, stage in STAGES.items()} | TOOLS
    parser = ArgumentParser(
        prog="deeplab-bench",
        description="Reproducibility benchmark for the DeepLab line of semantic segmentation.",
        epilog=EPILOG,
    )
    text = "print the version and exit"
    parser.add_argument("--version", action=PrintVersion, nargs=0, default=SUPPRESS, help=text)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, text in helps.items():
        subparser = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}."
        )
        if name in command[:1]:
            main = import_module(f"pipelines.{name}").main
            subparser.set_defaults(main=main)
            for parameter in inspect.signature(main).parameters.values():
                add_argument(subparser, parameter)
    return parser


def add_argument(parser: ArgumentParser, parameter: inspect.Parameter) -> None:
    """Add a positional argument, or an option if it is keyword-only.

    An option without default is required. The help stands in the annotation:
    ``Annotated[int, "the help"]``. ``int | None`` is an option that may be missing.
    """
    kind, *texts = get_args(parameter.annotation) or (parameter.annotation,)
    if isinstance(kind, UnionType):
        kind = get_args(kind)[0]
    options: dict[str, Any] = {"help": texts[0] if texts else None}
    if parameter.kind is parameter.VAR_POSITIONAL:
        parser.set_defaults(variadic=parameter.name)
        parser.add_argument(parameter.name, nargs="*", type=kind, **options)
    elif parameter.kind is not parameter.KEYWORD_ONLY:
        parser.add_argument(parameter.name, type=kind, **options)
    elif kind is bool:
        parser.add_argument(f"--{parameter.name}", action="store_true", **options)
    else:
        if parameter.default is parameter.empty:
            options["required"] = True
        else:
            options["default"] = parameter.default
        parser.add_argument(f"--{parameter.name}", type=kind, metavar="X", **options)
