"""Command ``select``: change ``run`` in params.yaml: profile, or models of a study."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from deeplab_bench.settings.blocks import ParamsError, require_known
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.params import PARAMS_FILE, Params, load_params, parse_params
from deeplab_bench.writing import write_bytes


def main(
    *,
    profile: Annotated[str, "the profile to run, with the lists of its `run`"] = "",
    study: Annotated[str, "the study whose models to run"] = "",
) -> None:
    """Edit ``run`` in params.yaml.

    Raises:
        ParamsError: there is no such profile or study, or the profile cannot run the study's
            models; nothing is edited.
    """
    params = load_params()
    lists: dict[str, Sequence[Any]] = {}
    if profile:
        require_known(profile, params.profile, "--profile")
        own = params.profile[profile].run
        lists = {"profiles": [profile], **(own.model_dump(exclude_none=True) if own else {})}
    if study:
        require_known(study, params.studies, "--study")
        chosen = params.studies[study]
        lists |= {"models": chosen.models, "inference": [PLAIN, *chosen.inference]}
        lists |= {"crf": chosen.crf, "audit": []}
    text = PARAMS_FILE.read_text(encoding="utf-8")
    before, section, run = re.split(r"(?m)^(run:.*\n)", text, maxsplit=1)
    for key, values in lists.items():
        line = rf"\g<1>{format_list(values, params)}"
        run, replaced = re.subn(rf"(?m)^(  {key}: )(\[.*?\]|\*\w+)", line, run, count=1)
        if not replaced:
            raise ParamsError(
                f"{PARAMS_FILE}: run.{key} is not on a line of its own: edit it there"
            )
    text = before + section + run
    parse_params(text, PARAMS_FILE)
    write_bytes(PARAMS_FILE, text.encode())


def format_list(values: Sequence[Any], params: Params) -> str:
    """Format a list in YAML; the models of a study by its name."""
    same = (name for name, study in params.studies.items() if study.models == tuple(values))
    return next((f"*{name}" for name in same), f"[{', '.join(map(str, values))}]")
