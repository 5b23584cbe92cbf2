"""What ``dvc repro`` takes beyond its work: stages' start-up, digests, DVC itself."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from deeplab_bench.results.files import crf_timing_file, timing_file
from deeplab_bench.settings.params import Params

PHASES = ("training_seconds", "evaluation_seconds", "search_seconds")


def repro_text(params: Params) -> str:
    """Run every stage anew, some minutes long, and say how much of it was work."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipelines.warm", "dvc", "repro", "--force"], check=True)
    wall = time.monotonic() - started
    work = work_seconds(params)
    return (
        f"dvc repro took {wall:.0f} s, of which {work:.0f} s ({work / wall:.0%}) were training, "
        "evaluation and the CRF; the rest is the other stages, start-up and DVC."
    )


def work_seconds(params: Params) -> float:
    """What the stages of the default run measured themselves, in all."""
    runs = [(model, seed) for model in params.run.models for seed in params.run.seeds]
    profiles = params.run.profiles
    files = [timing_file(profile, *run) for profile in profiles for run in runs]
    files += [
        crf_timing_file(profile, *run)
        for profile in profiles
        for run in runs
        if run[0] in params.run.crf
    ]
    return sum(read(path).get(phase, 0.0) for path in files for phase in PHASES)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
