"""Command ``plan``: print what is due and what it costs; nothing is trained.

The plan lists the stages that are due, the downloads, the disk space and the hours of training,
which it also keeps for ``make repro``, to tell how long that still takes.
The hours are computed from training steps: timed here, or stored for another device.
"""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated

import pandas as pd

from deeplab_bench.errors import UserError
from deeplab_bench.results.files import get_steps_file
from deeplab_bench.runtime.device import pick_device
from deeplab_bench.runtime.environment import get_device_name
from deeplab_bench.runtime.pins import find_missing_pin, list_pins
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.timing import steps
from deeplab_bench.timing.costs import (
    compute_costs,
    describe_disk,
    list_cases,
    list_downloads,
    list_possible_models,
)
from deeplab_bench.timing.steps import Step
from pipelines.dvc_runs import list_due_runs
from pipelines.stages import STAGES
from pipelines.sweep import run_costs
from pipelines.sweep.run_costs import RunCost

LIMIT_SECONDS = 600.0


def main(
    *profiles: Annotated[str, "default: run.profiles"],
    all: Annotated[bool, "every model that the profile can have, not just run.models"] = False,
    limit: Annotated[float, "time no further model after so many seconds"] = LIMIT_SECONDS,
    device: Annotated[str, "take the stored steps of the device of this name"] = "",
    save: Annotated[str, "store the steps timed here under this name"] = "",
) -> None:
    if device and save:
        raise UserError(f"--device {device} and --save {save} exclude each other: give one of them")
    given = load_params()
    runs = given.run.profiles
    planned = {profile: given.with_profile(profile) for profile in profiles or runs}
    if not device:
        options = ["--limit", str(limit), *(["--all"] if all else [])]
        pin(planned, ["plan", *planned, *options, *(["--save", save] if save else [])])
    chosen = {
        profile: list_possible_models(params, profile) if all else params.run.models
        for profile, params in planned.items()
    }
    found, whose = find_steps(given, chosen, device, save, limit)
    expected: dict[str, RunCost] = {}
    for profile, models in chosen.items():
        params = planned[profile]
        due = list_due_runs(profile) if profile in runs else None
        training = compute_training_costs(params, profile, models, found, due)
        print(format_plan(params, profile, models, training, due))
        expected |= list_run_costs(params, profile, training)
    run_costs.write(run_costs.PLANNED, expected)
    print(whose)


def pin(planned: Mapping[str, Params], command: Sequence[str]) -> None:
    """Start the command again with the pins that training has, unless this process has them.

    They must be set before numpy and torch are imported.

    Raises:
        UserError: the profiles are not trained under the same pins.
    """
    process, *others = {params.profile[name].process for name, params in planned.items()}
    if others:
        raise UserError(
            f"{', '.join(planned)} differ in `process`, which changes the time of a step: "
            "plan them one by one"
        )
    if find_missing_pin(process.determinism, process.threads) is not None:
        os.environ.update(list_pins(process.determinism, process.threads))
        os.execv(sys.executable, [sys.executable, "-m", "deeplab_bench", *command])


def compute_training_costs(
    params: Params,
    profile: str,
    models: Sequence[str],
    found: Mapping[str, Step],
    due: Collection[str] | None,
) -> pd.DataFrame:
    """Compute the costs of training; ``due`` has the runs that are out of date, None means all."""
    train_due = [
        due is None or f"train@{profile}-{model}-{seed}" in due
        for model in models
        for seed in params.run.seeds
    ]
    return compute_costs(params, profile, models, found, train_due)


def format_plan(
    params: Params,
    profile: str,
    models: Sequence[str],
    training: pd.DataFrame,
    due: Collection[str] | None,
) -> str:
    """Format the plan of a profile.

    ``training`` has the costs of its training. ``due`` has the runs that are out of date; it is
    None if DVC does not know the profile's stages.
    """
    downloads = list_downloads(params, profile, models)
    blocks = [
        f"Plan of {profile}: {len(models)} models, {len(params.run.seeds)} seeds",
        format_due(due),
        "\n".join([*downloads, describe_disk(params, profile, models)]),
        format_costs(training),
        *format_studies(params, training),
        *list_unknown_steps(training),
    ]
    return "\n\n".join(blocks) + "\n"


def list_run_costs(params: Params, profile: str, training: pd.DataFrame) -> dict[str, RunCost]:
    """List the costs of trainings whose steps are known, for the driver of ``make repro``."""
    phases = training.groupby("model", sort=False)["hours_per_seed"]
    hours = phases.agg(lambda column: column.sum(skipna=False)).dropna()
    return {
        f"train@{profile}-{model}-{seed}": RunCost(round(3600 * spent, 1))
        for model, spent in hours.items()
        for seed in params.run.seeds
    }


def format_due(due: Collection[str] | None) -> str:
    if due is None:
        return "All stages count as due: `run.profiles` does not name this profile."
    counts = Counter(run.partition("@")[0] for run in due)
    rows = [{"stage": name, "due": counts[name]} for name in STAGES if counts[name]]
    return format_table(pd.DataFrame(rows)) if rows else "All stages are up to date."


def format_costs(table: pd.DataFrame) -> str:
    shown = table.drop(columns="fits").dropna(axis="columns", how="all")
    text = format_table(shown)
    total = f"{table['hours'].sum():.2f} h of training in all, {table['hours_due'].sum():.2f} h due"
    return (
        f"{text}\n\n{total}; reading the data, evaluation and timing come on top.\n"
        f"{table['pflop'].sum():,.3f} PFLOP of training: a multiply-add as two, convolutions and "
        "matrix products alone."
    )


def format_studies(params: Params, table: pd.DataFrame) -> list[str]:
    """Format the training hours of each study whose models all have known times."""
    hours = table.groupby("model")["hours"].agg(lambda phases: phases.sum(skipna=False))
    rows = [
        {"study": name, "models": len(study.models), "hours": hours[list(study.models)].sum()}
        for name, study in params.studies.items()
        if hours.reindex(study.models).notna().all()
    ]
    return [format_table(pd.DataFrame(rows))] if rows else []


def list_unknown_steps(table: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each reason why models are missing from the hours."""
    unknown = table["step_s"].isna()
    for names, reason in (
        (table["model"][unknown & ~table["fits"]], "they do not fit into the memory"),
        (table["model"][unknown & table["fits"]], "no step of theirs is known"),
    ):
        if len(names):
            yield f"Not in the hours, as {reason}: {', '.join(dict.fromkeys(names))}."


def format_table(table: pd.DataFrame) -> str:
    known = table.astype(object).where(table.notna(), None)
    return known.to_markdown(index=False, tablefmt="simple", floatfmt=".3f", missingval="-")


def find_steps(
    params: Params, chosen: Mapping[str, Sequence[str]], device: str, save: str, limit: float
) -> tuple[dict[str, Step], str]:
    """Load or measure the training steps, by the key of their case; say where they are from."""
    if device:
        stored = steps.load(get_steps_file(device))
        return stored.steps, f"Stored steps of {device}, {stored.environment['device']}."
    cases = [
        case
        for profile, models in chosen.items()
        for model in models
        for case in list_cases(params, profile, model)
    ]
    here = pick_device()
    found = steps.measure_steps(cases, here, limit)
    if save:
        steps.save(get_steps_file(save), found, here)
    kind = "CPU; the hours are this CPU's" if here.type == "cpu" else "GPU"
    return found, f"Steps timed here, on {get_device_name(here)}, a {kind}."
