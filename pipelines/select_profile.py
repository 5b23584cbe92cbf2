"""Set ``run.profiles`` in params.yaml: what ``make repro PROFILE=...`` does first."""

import re

from deeplab_bench.settings.params import PARAMS_FILE, ParamsError, load_params


def main(profile: str) -> None:
    if profile not in load_params().profile:
        raise ParamsError(f"PROFILE={profile} is not a section of {PARAMS_FILE}'s `profile`")
    text = PARAMS_FILE.read_text(encoding="utf-8")
    selected = re.sub(r"(?m)^  profiles: .*$", f"  profiles: [{profile}]", text, count=1)
    PARAMS_FILE.write_text(selected, encoding="utf-8")
