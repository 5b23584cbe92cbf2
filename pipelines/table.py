"""Command ``table``: the accuracy table of each profile, for a terminal."""

from typing import Annotated

from deeplab_bench.report.tables import accuracy_text
from deeplab_bench.settings.params import load_params


def main(*profiles: Annotated[str, "default: run.profiles"]) -> None:
    params = load_params()
    print("\n".join(accuracy_text(params, name) for name in profiles or params.run.profiles))
