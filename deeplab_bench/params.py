"""params.yaml, checked as a whole before any work, as frozen settings.

``load_params`` is the only reader of the file. A mistake anywhere in it is one ``ParamsError`` that
names the key, the value and the nearest valid one.
"""

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.errors import UserError
from deeplab_bench.models import ARCHITECTURES, arguments_of, check_arguments

PARAMS_FILE = Path("params.yaml")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]  # becomes part of a path
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class ParamsError(UserError):
    """params.yaml asks for something that cannot be; the message is one line for its author."""


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ShapesData(Settings):
    """The generated set (``deeplab_bench.data.shapes``); sizes in pixels."""

    dataset: Literal["shapes"]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    image_size: Annotated[int, Field(ge=32)]
    train_images: PositiveInt
    val_images: PositiveInt


class CamVidData(Settings):
    """CamVid as the SegNet tutorial distributes it, or a VOC-layout folder of it at ``root``."""

    dataset: Literal["camvid"]
    mirrors: tuple[str, ...] = ()
    root: str | None = None


class FolderData(Settings):
    """Any folder in Pascal VOC's layout, its class names in ``classes.txt``."""

    dataset: Literal["folder"]
    root: str


Data = Annotated[ShapesData | CamVidData | FolderData, Field(discriminator="dataset")]


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(first >= second for first, second in pairwise(values)):
        raise ValueError("the values should ascend")
    return values


def _from_zero(iterations: tuple[int, ...]) -> tuple[int, ...]:
    if iterations[0] != 0:
        raise ValueError("the first should be 0, the network alone")
    return cast(tuple[int, ...], _ascending(iterations))


class Training(Settings):
    """The schedule: SGD with the poly policy. Sizes in pixels, ``crop_size`` is (height, width)."""

    iterations: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    crop_size: tuple[PositiveInt, PositiveInt]
    base_lr: PositiveFloat
    poly_power: Annotated[float, Field(ge=0)]
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    random_scale: tuple[PositiveFloat, PositiveFloat]
    horizontal_flip: bool
    precision: Literal["float32", "bfloat16"]

    @model_validator(mode="after")
    def _scales_ascend(self) -> "Training":
        if self.random_scale[0] > self.random_scale[1]:
            raise ValueError(f"random_scale {list(self.random_scale)} is not [smallest, largest]")
        return self


Ascending = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_ascending)]


class CRFSearch(Settings):
    """The values of which all combinations are scored on some training images."""

    images: PositiveInt
    w1: Ascending
    sigma_alpha: Ascending
    sigma_beta: Ascending


class CRF(Settings):
    """The fully connected CRF (``deeplab_bench.crf``), its parameters by the papers' names.

    With ``search`` the first three are where the search begins. Results are given after each of
    ``iterations``, of which 0 is the network alone.
    """

    w1: PositiveFloat
    sigma_alpha: PositiveFloat
    sigma_beta: PositiveFloat
    w2: PositiveFloat
    sigma_gamma: PositiveFloat
    iterations: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=2), AfterValidator(_from_zero)
    ]
    search: CRFSearch | None = None


class Profile(Settings):
    """A data set with the backbone and schedule under which all models are compared on it.

    ``model`` holds arguments of architectures, by name; each architecture takes those it knows.
    """

    data: Data
    model: dict[str, Any]
    training: Training
    crf: CRF | None = None


class Run(Settings):
    """What ``dvc repro`` runs."""

    profiles: Annotated[tuple[Name, ...], Field(min_length=1)]
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    hardware: tuple[Name, ...]
    crf: tuple[Name, ...] = ()


SECTIONS: dict[str, type[Settings]] = {
    "run": Run,
    "training": Training,
    "crf": CRF,
    "search": CRFSearch,
    "shapes": ShapesData,
    "camvid": CamVidData,
    "folder": FolderData,
}


class Experiment(Settings):
    """One model under one profile, every setting resolved."""

    profile: str
    model: str
    architecture: str
    arguments: dict[str, Any]
    training: Training


class Params(Settings):
    run: Run
    profile: dict[Name, Profile]
    models: dict[Name, dict[str, Any]]

    def experiment(self, profile: str, model: str) -> Experiment:
        """The settings of a declared model under a profile.

        Raises:
            ParamsError: either is undefined, or the model's block does not fit its architecture.
        """
        settings = self.profile[_known(profile, self.profile, "run.profiles")]
        block = dict(self.models[_known(model, self.models, "run.models")])
        where = f"models.{model}"
        if "architecture" not in block:
            raise ParamsError(f"{where} needs the key 'architecture'")
        architecture = _known(block.pop("architecture"), ARCHITECTURES, f"{where}.architecture")
        schedule = settings.training.model_dump() | _mapping(block.pop("training", {}), where)
        return Experiment(
            profile=profile,
            model=model,
            architecture=architecture,
            arguments=_arguments(architecture, settings.model, block, where),
            training=_validated(Training, schedule, f"{where}.training."),
        )

    def crf(self, profile: str) -> CRF:
        """
        Raises:
            ParamsError: the profile is undefined, or has no such section.
        """
        settings = self.profile[_known(profile, self.profile, "run.profiles")].crf
        if settings is None:
            raise ParamsError(f"profile.{profile}.crf is missing: run.crf needs it")
        return settings

    def check(self) -> None:
        """Check that the entries fit each other, those that no run uses included."""
        for key, values in self.run.model_dump().items():
            if len(set(values)) < len(values):
                raise ParamsError(f"run.{key} {list(values)} names one of them twice")
        for model in self.run.models:
            _known(model, self.models, "run.models")
        self._check_crf()
        every_argument = {
            name: (p.annotation, None)
            for architecture in ARCHITECTURES
            for name, p in arguments_of(architecture).items()
        }
        schema = create_model("model", __base__=Settings, **cast(Any, every_argument))
        for profile, settings in self.profile.items():
            _validated(schema, settings.model, f"profile.{profile}.model.")
            for model in self.models:
                self.experiment(profile, model)
        for profile in self.run.profiles:
            for model in self.models:
                experiment = self.experiment(_known(profile, self.profile, "run.profiles"), model)
                try:
                    check_arguments(experiment.architecture, experiment.arguments)
                except ValueError as error:
                    raise ParamsError(f"models.{model} under profile.{profile}: {error}") from None

    def _check_crf(self) -> None:
        for model in self.run.crf:
            if model not in self.run.models:
                raise ParamsError(
                    f"run.crf: {model!r} is not in run.models{_nearest(model, self.run.models)}"
                )
        for profile in self.run.profiles if self.run.crf else ():
            self.crf(profile)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: anything in the file is wrong.
    """
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from None
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        params = _validated(Params, content)
        params.check()
    except ParamsError as error:
        raise ParamsError(f"{path}: {error}") from None
    return params


def _arguments(
    architecture: str, defaults: Mapping[str, Any], block: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The profile's values for what the architecture takes, overridden by the model's block."""
    parameters = arguments_of(architecture)
    chosen = {name: value for name, value in defaults.items() if name in parameters} | dict(block)
    fields: dict[str, Any] = {
        name: (p.annotation, ... if p.default is p.empty else p.default)
        for name, p in parameters.items()
    }
    schema = create_model(architecture, __base__=Settings, **fields)
    arguments = _validated(schema, chosen, f"{where}.").model_dump(mode="json")
    if "atrous_rates" in arguments and "atrous_rates" not in block:
        if "output_stride" not in defaults:
            raise ParamsError(
                f"{where}.atrous_rates is missing: the profile's are of no stated output_stride"
            )
        arguments["atrous_rates"] = _rates_at(
            arguments["output_stride"], arguments["atrous_rates"], defaults["output_stride"], where
        )
    return arguments


def _rates_at(output_stride: int, rates: list[int], given_for: int, where: str) -> list[int]:
    """The profile's atrous rates, ``given_for`` its output stride, at the model's.

    They double as the stride halves (DeepLabv3, Section 3.3).
    """
    scaled = [rate * given_for / output_stride for rate in rates]
    if any(rate != int(rate) for rate in scaled):
        raise ParamsError(
            f"{where}.output_stride {output_stride} turns the profile's atrous_rates {rates} "
            f"into {scaled}: give {where}.atrous_rates as whole numbers"
        )
    return [int(rate) for rate in scaled]


Schema = TypeVar("Schema", bound=BaseModel)


def _validated(schema: type[Schema], content: Any, where: str = "") -> Schema:
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
    key = re.sub(r"\bdata\.(shapes|camvid|folder)\b", "data", key)
    if error["type"] == "extra_forbidden":
        *section, name = error["loc"]
        return f"{key} is not a known key{_nearest(str(name), _keys_of(section, schema))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key} is {json.dumps(error['input'])}: {message}"


def _keys_of(section: Sequence[str | int], schema: type[BaseModel]) -> Collection[str]:
    """The keys that a section of ``schema`` may have."""
    if section:
        return SECTIONS.get(str(section[-1]), Profile).model_fields
    if schema.__name__ in ARCHITECTURES:
        return {*schema.model_fields, "architecture", "training"}
    return schema.model_fields


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParamsError(f"{where}.training is {json.dumps(value)}: it should be a mapping")
    return value


def _known(name: Any, valid: Collection[str], where: str) -> str:
    if not isinstance(name, str) or name not in valid:
        raise ParamsError(f"{where}: {name!r} is not defined{_nearest(str(name), valid)}")
    return name


def _nearest(name: str, valid: Collection[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.0)
    return f"; the nearest valid one is {close[0]!r}" if close else ""
