"""Differences between two instruction sets: ``python -m studies.instruction_sets PROFILE``.

All committed runs of the profile are made again in a clone, with the instruction set that this
machine has, or that the environment names. The differences are the tolerance of ``verify``, and go
to ``results/tolerances``. It takes as long as the trainings.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import torch

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import RunFiles, get_tolerance_file
from deeplab_bench.results.records import ToleranceRecord, write_record
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.settings.blocks import require_known
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params_file import PARAMS_FILE
from deeplab_bench.verification.departure import find_departure
from deeplab_bench.verification.verdict import RunResults, read_results
from deeplab_bench.writing import write_bytes
from pipelines.reruns import clone_head, rerun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile")
    try:
        measure(parser.parse_args().profile)
    except UserError as error:
        sys.exit(f"error: {error}")


def measure(profile: str) -> None:
    """Make all runs of a profile again, and store the differences.

    Raises:
        UserError: the committed results are of the same instruction set, or have no fingerprints.
    """
    with clone_head() as clone:
        params = load_params(clone / PARAMS_FILE)
        require_known(profile, params.profile, "PROFILE")
        runs = [RunFiles(profile, *run) for run in product(params.run.models, params.run.seeds)]
        committed = {run: read_results(clone, run, params.run.inference) for run in runs}
        free_instruction_set(clone / PARAMS_FILE)
        here = rerun(clone, params, committed)
    sets = {
        str(results.environment["instruction_set"])
        for results in [*committed.values(), *here.values()]
    }
    if len(sets) != 2:
        raise UserError(
            f"the runs are all of {', '.join(sets)}: set ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA"
        )
    content = {
        "profile": profile,
        "instruction_sets": sorted(sets),
        "environment": describe_environment(torch.device("cpu")),
        "runs": {run.name: describe_difference(committed[run], here[run]) for run in here},
    }
    write_record(get_tolerance_file(profile), ToleranceRecord, content)


def free_instruction_set(params: Path) -> None:
    """Let the profiles of a clone use the machine's instruction set."""
    text = params.read_text(encoding="utf-8")
    write_bytes(params, text.replace("determinism: portable", "determinism: native").encode())


def describe_difference(committed: RunResults, here: RunResults) -> dict[str, str | float | None]:
    """Describe how far two trainings of a run are apart, as ``RunDifference`` does."""
    if committed.fingerprints is None or here.fingerprints is None:
        raise UserError("the committed results have no fingerprints: run `make repro` first")
    departure = find_departure(committed.fingerprints, here.fingerprints)
    loss = 0.0 if departure is None else departure.loss_change or 0.0
    same_start = committed.provenance["weights_sha256"] == here.provenance["weights_sha256"]
    return {
        "settings_sha256": committed.provenance["settings_sha256"],
        "loss": float(f"{loss:.3g}") if same_start else None,
        "miou": round(here.miou - committed.miou, 6),
    }


if __name__ == "__main__":
    main()
