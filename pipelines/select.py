"""Command ``select``: edit ``run`` in params.yaml, the profile, or the models of a study."""

import re
from collections.abc import Collection
from typing import Annotated

from deeplab_bench.errors import suggest_nearest
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.params import PARAMS_FILE, load_params
from deeplab_bench.settings.schema import PLAIN


def main(
    *,
    profile: Annotated[str, "the profile to run"] = "",
    study: Annotated[str, "the study whose models to run"] = "",
) -> None:
    """
    Raises:
        ParamsError: there is no such profile or study; nothing is edited.
    """
    params = load_params()
    lines = {}
    if profile:
        require("--profile", profile, params.profile)
        lines["profiles"] = f"[{profile}]"
    if study:
        require("--study", study, params.studies)
        chosen = params.studies[study]
        lines["models"] = f"*{study}"
        lines["inference"] = f"[{', '.join([PLAIN, *chosen.inference])}]"
        lines["crf"] = f"[{', '.join(chosen.crf)}]"
        lines["audit"] = "[]"
    text = PARAMS_FILE.read_text(encoding="utf-8")
    for key, value in lines.items():
        text = re.sub(rf"(?m)^  {key}: .*$", f"  {key}: {value}", text, count=1)
    PARAMS_FILE.write_text(text, encoding="utf-8")


def require(option: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ParamsError(f"{option}: {name!r} is not defined{suggest_nearest(name, known)}")
