"""The sections of params.yaml: their schemas, and the one line that says what is wrong in one."""

import json
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from deeplab_bench.data.registry import DATA_SETS, Data
from deeplab_bench.errors import suggest_nearest
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.base import PositiveInt, Settings
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.cluster import Resources
from deeplab_bench.settings.crf import CRF, CRFSearch
from deeplab_bench.settings.inference import Inference
from deeplab_bench.settings.pretraining import Pretraining
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.training import Training

NAME_PATTERN = r"^[A-Za-z0-9_.]+$"  # a name becomes part of a path
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Percent = Annotated[float, Field(gt=0, le=100)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Models = Annotated[tuple[Name, ...], Field(min_length=1)]


class SecondPhase(Settings):
    """Changes for a second phase of training, which starts from the weights of the first."""

    output_stride: OutputStride | None = None
    """The output stride of this phase; without it, that of the first."""
    train_split: str | None = None
    """One of the data's ``further_splits``; without it, the split of the first phase."""
    training: dict[str, Any]
    """Keys of ``training`` that differ from those of the first phase."""


class RunSettings(Settings):
    """The lists that the stages of ``dvc repro`` run over."""

    profiles: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The profiles that run, by name."""
    models: Models
    """The models to train and score, by name."""
    seeds: Seeds
    """The seeds of the trainings. Receptive fields are those of the first."""
    hardware: tuple[Name, ...]
    """Labels of the machine to time models on: ``cpu``, ``gpu``, or words of the device's name."""
    inference: tuple[Name, ...]
    """The ways of inference to score; ``plain`` has to be there."""
    crf: tuple[Name, ...]
    """The models whose predictions the CRF refines; they are in ``models``."""
    audit: tuple[Name, ...]
    """The models that are scored by the scoring variants, too; they are in ``models``."""
    label_files: tuple[Name, ...]
    """The models of others that are scored by their label PNGs."""


class ProfileRun(Settings):
    """Lists of ``run`` that belong to a profile. A list that is not given stays as it is."""

    models: Models | None = None
    seeds: Seeds | None = None
    hardware: tuple[Name, ...] | None = None
    inference: tuple[Name, ...] | None = None
    crf: tuple[Name, ...] | None = None
    audit: tuple[Name, ...] | None = None
    label_files: tuple[Name, ...] | None = None


class Profile(Settings):
    """A data set, and the backbone and schedule that all models are compared with on it."""

    data: Data
    """The data set, by its key ``dataset``, and its settings."""
    process: Process = Process()
    """What results may depend on, beside settings, data and code."""
    miou_ceiling: Percent | None = None
    """The mIoU, in percent, above which the report marks a run as implausible."""
    model: dict[str, Any]
    """Arguments of architectures, by name. Each architecture takes those that it knows."""
    training: Training
    """The schedule of all models, but for what their blocks say."""
    pretraining: Pretraining | None = None
    """How the stage ``pretrain`` makes weights of the profile's backbone."""
    crf: CRF | None = None
    """The parameters of the CRF."""
    run: ProfileRun | None = None
    """Lists that ``make repro PROFILE=<name>`` puts into the section ``run``."""
    resources: Resources = Resources()
    """What a stage asks a machine of a cluster for."""


class Study(Settings):
    """Models that answer one question together, most often the rows of one published table.

    ``hours`` are computed from the number of operations, not measured. ``expect`` is absent if the
    paper has no such number on VOC 2012.
    """

    paper: str
    """The paper and its table."""
    question: str
    """The question that the models answer together."""
    hours: PositiveInt
    """GPU hours of training all models from 3 seeds on ``voc2012``, at 100 TFLOP/s; computed."""
    expect: tuple[Percent, Percent] | None = None
    """The lowest and the highest published mIoU of the cited rows, in percent."""
    models: Models
    """The models, by name."""
    inference: tuple[Name, ...] = ()
    """The ways of inference that ``run.inference`` needs for some of the rows."""
    crf: tuple[Name, ...] = ()
    """The models that ``run.crf`` needs for some of the rows."""

    @model_validator(mode="after")
    def _scores_ascend(self) -> "Study":
        if self.expect is not None and self.expect[0] > self.expect[1]:
            raise ValueError(f"expect {list(self.expect)} is not [lowest, highest]")
        return self


SECTIONS: dict[str, type[Settings]] = {
    "run": RunSettings,
    "process": Process,
    "training": Training,
    "pretraining": Pretraining,
    "crf": CRF,
    "search": CRFSearch,
}

# A model's block has these keys beside the arguments of its architecture.
BLOCK_KEYS = ("architecture", "extends", "per_profile", "published", "second_phase", "training")
NAMED: dict[str, type[Settings]] = {  # sections whose keys are names
    "profile": Profile,
    "inference": Inference,
    "studies": Study,
}

Schema = TypeVar("Schema", bound=BaseModel)


def validate(schema: type[Schema], content: Any, where: str = "") -> Schema:
    """Check content against a schema; ``where`` is put before the keys that a message names.

    Raises:
        ParamsError: the content does not fit.
    """
    try:
        text = json.dumps(content, default=str)
    except TypeError as error:
        raise ParamsError(f"{where or 'a section'} has a key that is not text: {error}") from None
    try:
        return schema.model_validate_json(text)
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise ParamsError(_one_line(first, schema, where)) from None


def _one_line(error: Any, schema: type[BaseModel], where: str) -> str:
    key = (where + ".".join(str(part) for part in error["loc"])).rstrip(".") or "its content"
    key = re.sub(rf"\bdata\.({'|'.join(DATA_SETS)})\b", "data", key)
    if error["type"] == "extra_forbidden":
        *section, name = error["loc"]
        return f"{key} is not a known key{suggest_nearest(str(name), _keys_of(section, schema))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key} is {json.dumps(error['input'])}: {message}"


def _keys_of(section: Sequence[str | int], schema: type[BaseModel]) -> Collection[str]:
    """List the keys that a section of ``schema`` may have."""
    if len(section) == 2 and section[0] in NAMED:
        return NAMED[str(section[0])].model_fields
    if len(section) > 1 and (section[0], section[-1]) == ("profile", "run"):
        return ProfileRun.model_fields
    if section:
        parent, name = ("", *map(str, section))[-2:]
        return (DATA_SETS if parent == "data" else SECTIONS)[name].model_fields
    if schema.__name__ in ARCHITECTURES:
        return {*schema.model_fields, *BLOCK_KEYS}
    return schema.model_fields
