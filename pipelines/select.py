"""Command ``select``: change ``run`` in params.yaml: profile, or models of a study."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from deeplab_bench.settings.blocks import ParamsError, require_known
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.loading import load_params, parse_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.params_file import PARAMS_FILE
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
    before_run = params.run.model_dump()
    selected = params.for_profile(params.pick_profile(profile)) if profile else params
    lists: dict[str, Sequence[Any]] = selected.run.model_dump()
    if study:
        require_known(study, params.studies, "--study")
        chosen = params.studies[study]
        lists |= {"models": chosen.models, "inference": (PLAIN, *chosen.inference)}
        lists |= {"crf": chosen.crf, "audit": (), "label_files": ()}
    text = PARAMS_FILE.read_text(encoding="utf-8")
    before, section, run = re.split(r"(?m)^(run:.*\n)", text, maxsplit=1)
    changed = {key: values for key, values in lists.items() if values != before_run[key]}
    for key, values in changed.items():
        line = rf"\g<1>{format_list(values, params, text)}"
        run, replaced = re.subn(rf"(?m)^(  {key}: )(\[.*?\]|\*\w+)", line, run, count=1)
        if not replaced:
            raise ParamsError(
                f"{PARAMS_FILE}: run.{key} is not on a line of its own: edit it there"
            )
    text = before + section + run
    parse_params(text, PARAMS_FILE)
    write_bytes(PARAMS_FILE, text.encode())
    for key, values in changed.items():
        print(f"{PARAMS_FILE}: run.{key}: {format_list(values, params, text)}")


def format_list(values: Sequence[Any], params: Params, text: str) -> str:
    """Format a list in YAML; the models of a study by its name, if ``text`` has such an anchor."""
    same = (
        name
        for name, study in params.studies.items()
        if study.models == tuple(values) and re.search(rf"&{name}\b", text)
    )
    return next((f"*{name}" for name in same), f"[{', '.join(map(str, values))}]")
