"""The options of ``sbatch`` that ``cluster.slurm`` has in params.yaml."""

from collections.abc import Mapping
from typing import Any

from submitit import SlurmExecutor

from pipelines.sweep.engine import EngineError

OWN = {  # options that the engine sets, whatever the profile's resources are
    "additional_parameters",
    "array",
    "array_parallelism",
    "chdir",
    "cpus_per_task",
    "error",
    "job_name",
    "nodes",
    "ntasks",
    "ntasks_per_node",
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
        if not isinstance(value, int) or value is True:
            raise EngineError(f"cluster.slurm.{key} is {value!r}, but must be a number of seconds")
        return value
    if key in ("setup", "teardown"):
        return [str(part) for part in parts]
    return ",".join(map(str, parts)) if isinstance(value, list) else value
