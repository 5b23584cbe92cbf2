"""Measure how much of ``dvc repro`` is work: ``python -m studies.repro_overhead``.

The rest is the start of the stages, their digests and DVC itself. All stages run again, which takes
minutes.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import crf_timing_file, timing_file
from deeplab_bench.settings.params import Params, load_params

PHASES = ("training_seconds", "evaluation_seconds", "search_seconds")


def main() -> None:
    try:
        params = load_params()
    except UserError as error:
        sys.exit(str(error))
    total = time_repro()
    work = sum_work_seconds(params)
    print(
        f"dvc repro took {total:.0f} s. Training, evaluation and the CRF took {work:.0f} s of them "
        f"({work / total:.0%}). The rest is other stages, the start of processes and DVC."
    )


def time_repro() -> float:
    """Run every stage again and return the seconds."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipelines.warm", "dvc", "repro", "--force"], check=True)
    return time.monotonic() - started


def sum_work_seconds(params: Params) -> float:
    """Add up the seconds that the stages of the default run measured themselves."""
    runs = [(model, seed) for model in params.run.models for seed in params.run.seeds]
    profiles = params.run.profiles
    files = [timing_file(profile, *run) for profile in profiles for run in runs]
    files += [
        crf_timing_file(profile, *run)
        for profile in profiles
        for run in runs
        if run[0] in params.run.crf
    ]
    return sum(read_json(path).get(phase, 0.0) for path in files for phase in PHASES)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
