"""Command ``select``: change ``run`` in params.yaml: profile, or models of a study."""

import re
from typing import Annotated

from deeplab_bench.settings.blocks import ParamsError, require_known
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.params import PARAMS_FILE, load_params, parse_params
from deeplab_bench.writing import write_bytes


def main(
    *,
    profile: Annotated[str, "the profile to run"] = "",
    study: Annotated[str, "the study whose models to run"] = "",
) -> None:
    """Edit ``run`` in params.yaml.

    Raises:
        ParamsError: there is no such profile or study, or the profile cannot run the study's
            models; nothing is edited.
    """
    params = load_params()
    lines = {}
    if profile:
        require_known(profile, params.profile, "--profile")
        lines["profiles"] = f"[{profile}]"
    if study:
        require_known(study, params.studies, "--study")
        chosen = params.studies[study]
        lines["models"] = f"*{study}"
        lines["inference"] = f"[{', '.join([PLAIN, *chosen.inference])}]"
        lines["crf"] = f"[{', '.join(chosen.crf)}]"
        lines["audit"] = "[]"
    text = PARAMS_FILE.read_text(encoding="utf-8")
    before, section, run = re.split(r"(?m)^(run:.*\n)", text, maxsplit=1)
    for key, value in lines.items():
        run, replaced = re.subn(rf"(?m)^  {key}: .*$", f"  {key}: {value}", run, count=1)
        if not replaced:
            raise ParamsError(
                f"{PARAMS_FILE}: run.{key} is not on a line of its own: edit it there"
            )
    text = before + section + run
    parse_params(text, PARAMS_FILE)
    write_bytes(PARAMS_FILE, text.encode())
