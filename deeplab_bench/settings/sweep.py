"""The settings that the driver of a sweep needs, read without torch.

A login node need not have torch, without which networks' arguments cannot be checked. The stage
``resolve``, which all others need, checks the whole of params.yaml.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deeplab_bench.errors import describe_first_error
from deeplab_bench.settings.blocks import ParamsError, require_known
from deeplab_bench.settings.cluster import Cluster, Resources
from deeplab_bench.settings.params_file import PARAMS_FILE, parse_yaml, read_params_file
from deeplab_bench.settings.process import Process


class Part(BaseModel):
    """A part of a section. Other keys of it are not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SweepProfile(Part):
    """How a profile computes, and what it asks a machine for."""

    process: Process = Process()
    resources: Resources = Resources()

    @property
    def cpus(self) -> int | None:
        """The cores that a process of a stage asks for; None if the profile does not say it."""
        return self.resources.cpus or self.process.threads


class SweepRun(Part):
    """The profiles that run."""

    profiles: tuple[str, ...] = Field(min_length=1)


class SweepParams(Part):
    """What of params.yaml says how and where stages run."""

    run: SweepRun
    profile: dict[str, SweepProfile]
    cluster: Cluster = Cluster()


def load_sweep_params(path: Path = PARAMS_FILE) -> SweepParams:
    """Read the part of a parameter file that says how and where stages run.

    Raises:
        ParamsError: the file cannot be read, or this part of it is wrong.
    """
    content = parse_yaml(read_params_file(path), path)
    try:
        params = SweepParams.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{path}: {describe_first_error(error)}") from None
    for name in params.run.profiles:
        require_known(name, params.profile, f"{path}: run.profiles")
    return params
