"""Command ``table``: print the accuracy table of each profile."""

from typing import Annotated

from deeplab_bench.report.tables import format_accuracy
from deeplab_bench.settings.loading import load_params


def main(*profiles: Annotated[str, "default: run.profiles"]) -> None:
    params = load_params()
    print("\n".join(format_accuracy(params, name) for name in profiles or params.run.profiles))
