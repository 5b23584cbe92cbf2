"""The options of ``sbatch``: those that ``cluster.slurm`` has in params.yaml, and the engine's."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from submitit import SlurmExecutor

from pipelines.sweep.engine import EngineError
from pipelines.sweep.task import Needs

UNLIMITED = ("INFINITE", "UNLIMITED")
WARNING_SECONDS = 90  # before the time limit: the time that a stage has to end, and some more
OWN = {  # options that the engine sets, whatever the profile's resources are
    "additional_parameters",
    "array",
    "array_parallelism",
    "chdir",
    "cpus_per_task",
    "error",
    "gpus_per_node",
    "job_name",
    "nodes",
    "ntasks",
    "ntasks_per_node",
    "num_gpus",
    "output",
    "requeue",
    "signal",
    "srun_args",
    "stderr_to_stdout",
    "use_srun",
}


def read_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``cluster.slurm``: options of ``sbatch`` and some of submitit.

    Raises:
        EngineError: one has another name, or a value that it cannot have.
    """
    names = {key: str(name) for key, name in SlurmExecutor._equivalence_dict().items()}
    options = {}
    for given_key, value in given.items():
        key = given_key.replace("-", "_")
        if names.get(key, key) in OWN:
            raise EngineError(
                f"cluster.slurm.{key} is set by the sweep itself: remove it; what a stage "
                "needs stands in resources of its profile"
            )
        if names.get(key, key) != key:
            raise EngineError(f"cluster.slurm.{key} is no option of sbatch: use {names[key]}")
        if value is not None and value is not False and value != []:
            options[key] = read_option(key, value)
    return options


def read_option(key: str, value: Any) -> Any:
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise EngineError(
            f"cluster.slurm.{key} is {value!r}, but must be text, a number, true or a list"
        )
    if key == "signal_delay_s":
        if not isinstance(value, int) or value is True or value < 1:
            raise EngineError(
                f"cluster.slurm.{key} is {value!r}, but must be a number of seconds, 1 or more"
            )
        return value
    if key == "time":
        return read_time(value)
    if key in ("setup", "teardown"):
        return [str(part) for part in parts]
    return ",".join(map(str, parts)) if isinstance(value, list) else value


def read_time(value: Any) -> int | str:
    """Read a time limit in minutes, which ``sbatch`` rounds up, too; or one that is no limit.

    Raises:
        EngineError: ``sbatch`` does not know such a time.
    """
    if str(value).upper() in UNLIMITED:
        return str(value).upper()
    days, dash, clock = str(value).rpartition("-")
    parts = clock.split(":")
    if len(parts) > 3 or not all(part.isdecimal() for part in [*parts, days if dash else "0"]):
        raise EngineError(
            f"cluster.slurm.time is {value!r}, but must be minutes, 'minutes:seconds', "
            "'hours:minutes:seconds', 'days-hours:minutes:seconds' or 'UNLIMITED'"
        )
    units = (3600, 60, 1) if dash or len(parts) == 3 else (60, 1)
    seconds = sum(int(part) * unit for part, unit in zip(parts, units, strict=False))
    return math.ceil((86400 * int(days or 0) + seconds) / 60)


def make_parameters(
    options: Mapping[str, Any], needs: Needs, excluded: Collection[str] = ()
) -> dict[str, Any]:
    """Return what submitit and ``sbatch`` are told of tasks with these needs.

    ``excluded`` are machines that the tasks do not get.
    """
    known = SlurmExecutor._valid_parameters()
    further = {key: value for key, value in options.items() if key not in known}
    parameters = {"time": None, "signal_delay_s": WARNING_SECONDS} | {
        key: value for key, value in options.items() if key in known
    }
    parameters |= {
        "nodes": needs.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": needs.node_cpus,
        # srun does not ask sbatch. With a number, a step has no other core of its job.
        "srun_args": ["--cpu-bind=none"] if needs.alone else [f"--cpus-per-task={needs.node_cpus}"],
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True} | further,
    }
    if needs.gpus:
        parameters["gpus_per_node"] = needs.node_gpus
    if needs.memory_mib is not None:
        parameters["mem"] = f"{needs.memory_mib}M"
    if needs.hours is not None:
        parameters["time"] = math.ceil(60 * needs.hours)
    if needs.alone:
        parameters["exclusive"] = True
    if excluded:
        own = [str(options["exclude"])] if "exclude" in options else []
        parameters["exclude"] = ",".join([*own, *sorted(excluded)])
    return parameters
