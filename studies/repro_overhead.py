"""Measurement of the overhead of ``dvc repro``: ``python -m studies.repro_overhead [--cold]``.

The overhead is the start of the stages, their digests, and DVC itself. All stages run again, which
takes minutes. With ``--cold`` there is no warm process: every stage imports torch.
"""

import argparse
import json
import sys
import time
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import RunFiles
from deeplab_bench.runtime.pins import list_pins
from deeplab_bench.settings.inference import PLAIN
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from pipelines.dvc_runs import run_dvc
from pipelines.warm import warm_process

PHASES = ("training_seconds", "evaluation_seconds", "search_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cold", action="store_true", help="do without the warm process")
    cold = parser.parse_args().cold
    try:
        params = load_params()
    except UserError as error:
        sys.exit(str(error))
    total = time_repro(params, cold)
    work = sum_work_seconds(params)
    print(
        f"dvc repro took {total:.0f} s. Training, evaluation and the CRF took {work:.0f} s of them "
        f"({work / total:.0%}). The rest is other stages, the start of processes and DVC."
    )


def time_repro(params: Params, cold: bool) -> float:
    """Run every stage again and return the seconds."""
    process = params.profile[params.run.profiles[0]].process
    pins = list_pins(process.determinism, process.threads)  # else the stages would not fork from it
    started = time.monotonic()
    with nullcontext() if cold else warm_process(pins):
        run_dvc("repro", "--force").check_returncode()
    return time.monotonic() - started


def sum_work_seconds(params: Params) -> float:
    """Add up the seconds that the stages of the default run measured themselves."""
    run = params.run
    files = [
        RunFiles(*names).evaluation_timing(PLAIN)
        for names in product(run.profiles, run.models, run.seeds)
    ]
    files += [RunFiles(*names).crf_timing for names in product(run.profiles, run.crf, run.seeds)]
    return sum(read_json(path).get(phase, 0.0) for path in files for phase in PHASES)


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
