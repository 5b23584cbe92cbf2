"""Command ``select``: edit ``run.profiles`` and ``run.models`` in params.yaml."""

import re
from typing import Annotated

from deeplab_bench.errors import nearest
from deeplab_bench.settings.params import PARAMS_FILE, ParamsError, load_params


def main(
    *,
    profile: Annotated[str, "the profile to run"] = "",
    study: Annotated[str, "the study whose models to run"] = "",
) -> None:
    """
    Raises:
        ParamsError: there is no such profile or study.
    """
    params = load_params()
    text = PARAMS_FILE.read_text(encoding="utf-8")
    for name, known, line in (
        (profile, params.profile, f"  profiles: [{profile}]"),
        (study, params.studies, f"  models: *{study}"),
    ):
        if name and name not in known:
            key = line.split(":")[0].strip()
            raise ParamsError(f"run.{key}: {name!r} is not defined{nearest(name, known)}")
        if name:
            key = line.split(":")[0]
            text = re.sub(rf"(?m)^{key}: .*$", line, text, count=1)
    PARAMS_FILE.write_text(text, encoding="utf-8")
