"""Command ``verify``: make committed runs again in a clone of HEAD, and compare the results.

The exit status is 0 if all runs are identical, 3 if some are only within the tolerance, 1 if one
is different.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd

from deeplab_bench.results.files import RunFiles, get_tolerance_file
from deeplab_bench.results.records import ToleranceRecord, read_record
from deeplab_bench.settings.blocks import require_known
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.params_file import PARAMS_FILE
from deeplab_bench.verification.verdict import (
    Comparison,
    RunResults,
    Verdict,
    compare,
    is_measured,
    list_changed_machine,
    list_stale,
    read_results,
)
from pipelines.reruns import clone_head, list_uncommitted, rerun

# The families of DeepLabv3's Figure 2, by the architecture that stands for each.
FAMILIES = ("image_pyramid", "encoder_decoder", "cascade", "aspp")
MEANING = {
    Verdict.IDENTICAL: "All runs are identical, bit for bit.",
    Verdict.TOLERATED: (
        "Some runs are not identical, but no further apart than two instruction sets were "
        "measured to be. Conclusions hold as far as the intervals of the tables reach."
    ),
    Verdict.DIFFERENT: (
        "Some runs are different. If versions differ below, install those of requirements.lock and "
        "verify again; otherwise report this output."
    ),
}
WIDTH = 100  # of the text, in characters
STATUS = {Verdict.IDENTICAL: 0, Verdict.TOLERATED: 3, Verdict.DIFFERENT: 1}


def main(
    *profiles: Annotated[str, "default: run.profiles"],
    models: Annotated[str, "models, with commas; default: one of each family of Figure 2"] = "",
    seed: Annotated[int, "the seed of the runs"] = 0,
) -> int:
    """Print a table of the runs, and what to do.

    Raises:
        ParamsError: params.yaml of HEAD does not define one of the names.
        RecordError: a run has no committed results.
        UserError: a stage failed.
    """
    comparisons: list[Comparison] = []
    with clone_head() as clone:
        params = load_params(clone / PARAMS_FILE)
        for profile in profiles:
            require_known(profile, params.profile, "PROFILES")
        planned = {
            profile: params.with_profile(profile) for profile in profiles or params.run.profiles
        }
        chosen = {
            profile: read_committed(clone, own, profile, models, seed)
            for profile, own in planned.items()
        }
        tolerances = {profile: read_tolerance(clone, profile) for profile in chosen}
        for profile, committed in chosen.items():
            here = rerun(clone, planned[profile], committed)
            comparisons += [
                compare(run, results, here.get(run), tolerances[profile])
                for run, results in committed.items()
            ]
    missing = [
        profile
        for profile, tolerance in tolerances.items()
        if tolerance is None
        or not all(is_measured(tolerance, *run) for run in chosen[profile].items())
    ]
    print(format_report(comparisons, missing, list_uncommitted()))
    return STATUS[find_worst(comparisons)]


def read_committed(
    clone: Path, params: Params, profile: str, models: str, seed: int
) -> dict[RunFiles, RunResults]:
    """Read the committed results of the chosen runs of a profile."""
    chosen = models.split(",") if models else choose_models(params, profile)
    for model in chosen:
        require_known(model, params.run.models, "--models")
    runs = [RunFiles(profile, model, seed) for model in chosen]
    return {run: read_results(clone, run, params.run.inference) for run in runs}


def read_tolerance(clone: Path, profile: str) -> ToleranceRecord | None:
    path = clone / get_tolerance_file(profile)
    return read_record(path, ToleranceRecord) if path.is_file() else None


def choose_models(params: Params, profile: str) -> list[str]:
    """Choose the first model of ``run.models`` of each family; all models if there is none."""
    first: dict[str, str] = {}
    for model in params.run.models:
        first.setdefault(params.experiment(profile, model).architecture, model)
    return [first[family] for family in FAMILIES if family in first] or list(params.run.models)


def find_worst(comparisons: Sequence[Comparison]) -> Verdict:
    found = {comparison.verdict for comparison in comparisons}
    return [verdict for verdict in Verdict if verdict in found][-1]


def format_report(
    comparisons: Sequence[Comparison], missing: Sequence[str], uncommitted: Sequence[str]
) -> str:
    """Format the table, then where each run departs, then what to do.

    ``missing``: the profiles without a tolerance that was measured under the settings of today.
    """
    rows = [
        {
            "run": describe_run(comparison),
            "verdict": comparison.verdict.value,
            "mIoU committed (%)": 100 * comparison.committed.miou,
            "here (%)": None if comparison.here is None else 100 * comparison.here.miou,
        }
        for comparison in comparisons
    ]
    known = pd.DataFrame(rows).astype(object)
    table = known.where(known.notna(), None).to_markdown(
        index=False, tablefmt="simple", floatfmt=".2f", missingval="-"
    )
    departures = [f"{describe_run(c)}: {c.why}" for c in comparisons if c.why]
    advice = list_advice(comparisons, missing)
    if uncommitted:
        advice.append(f"HEAD was verified, without the changes to {', '.join(uncommitted)}.")
    blocks = [table, "\n".join(departures), *(textwrap.fill(text, WIDTH) for text in advice)]
    return "\n\n".join(block for block in blocks if block)


def describe_run(comparison: Comparison) -> str:
    files = comparison.files
    return f"{files.profile} {files.model} {files.seed}"


def list_advice(comparisons: Sequence[Comparison], missing: Sequence[str]) -> list[str]:
    """List what the verdicts mean and what to do."""
    worst = find_worst(comparisons)
    stale = dict.fromkeys(what for comparison in comparisons for what in list_stale(comparison))
    machine = dict.fromkeys(
        text
        for comparison in comparisons
        if comparison.verdict != Verdict.IDENTICAL
        for text in list_changed_machine(comparison)
    )
    blind = [describe_run(c) for c in comparisons if c.committed.fingerprints is None]
    advice = [MEANING[worst]]
    if blind:
        advice.append(
            f"Scores alone were compared, as no fingerprints are committed: {', '.join(blind)}."
        )
    if missing and worst != Verdict.IDENTICAL:
        advice.append(
            f"No tolerance is measured for {', '.join(missing)}: `python -m "
            "studies.instruction_sets PROFILE` measures it."
        )
    if stale:
        advice.append(
            f"The committed results were made with other {', '.join(stale)} than HEAD has: "
            "`make repro` makes them again."
        )
    if machine:
        advice.append(f"Other machine or software: {'; '.join(machine)}.")
    return advice
