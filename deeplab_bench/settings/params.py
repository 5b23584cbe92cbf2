"""params.yaml, checked as a whole before any work, as frozen settings.

``load_params`` is the only reader of the file. A mistake anywhere in it is one ``ParamsError`` that
names the key, the value and the nearest valid one.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.data.registry import DATA_SETS, Data
from deeplab_bench.errors import nearest
from deeplab_bench.models import arguments_of, check_arguments
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.settings.published import Citation, PublishedError, published_value
from deeplab_bench.settings.schema import (
    CRF,
    CRFSearch,
    Experiment,
    Inference,
    Phase,
    at_output_stride,
    rates_at,
)
from deeplab_bench.settings.training import Training

PARAMS_FILE = Path("params.yaml")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")]  # becomes part of a path


class ParamsError(SettingsError):
    """params.yaml asks for something that cannot be; the message is one line for its author."""


class Then(Settings):
    """A second phase of training, from the first one's result: what it changes."""

    output_stride: OutputStride | None = None
    training: dict[str, Any]


class Profile(Settings):
    """A data set with the backbone and schedule under which all models are compared on it.

    ``model`` holds arguments of architectures, by name; each architecture takes those it knows. An
    mIoU above ``miou_ceiling``, in percent, is reported as implausible.
    """

    data: Data
    miou_ceiling: Annotated[float, Field(gt=0, le=100)] | None = None
    model: dict[str, Any]
    training: Training
    crf: CRF | None = None


class Run(Settings):
    """What ``dvc repro`` runs."""

    profiles: Annotated[tuple[Name, ...], Field(min_length=1)]
    models: Annotated[tuple[Name, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    hardware: tuple[Name, ...]
    inference: tuple[Name, ...]
    crf: tuple[Name, ...]
    audit: tuple[Name, ...]


SECTIONS: dict[str, type[Settings]] = {
    "run": Run,
    "training": Training,
    "crf": CRF,
    "search": CRFSearch,
}


class Params(Settings):
    run: Run
    profile: dict[Name, Profile]
    models: dict[Name, dict[str, Any]]
    inference: dict[Name, Inference]
    studies: dict[Name, tuple[Name, ...]] = Field(default_factory=dict)

    def experiment(self, profile: str, model: str) -> Experiment:
        """The settings of a declared model under a profile.

        Raises:
            ParamsError: either is undefined, or the model's block does not fit its architecture.
        """
        settings = self.profile[_known(profile, self.profile, "run.profiles")]
        block = dict(self.models[_known(model, self.models, "run.models")])
        where = f"models.{model}"
        block = _under(profile, block, self.profile, where)
        if "architecture" not in block:
            raise ParamsError(f"{where} needs the key 'architecture'")
        architecture = _known(block.pop("architecture"), ARCHITECTURES, f"{where}.architecture")
        block.pop("published", None)  # a citation is no setting
        overrides = _mapping(block.pop("training", {}), f"{where}.training")
        schedule = settings.training.model_dump() | overrides
        then = block.pop("then", None)
        experiment = Experiment(
            profile=profile,
            model=model,
            architecture=architecture,
            arguments=_arguments(architecture, settings.model, block, where),
            training=_validated(Training, schedule, f"{where}.training."),
        )
        if then is None:
            return experiment
        second = _second_phase(experiment, _validated(Then, then, f"{where}.then."), where)
        return experiment.model_copy(update={"then": second})

    def citations(self, model: str) -> list[Citation]:
        """The published rows that a model's block names, one or a list of them.

        Raises:
            ParamsError: one of them is not a citation.
        """
        given = self.models[model].get("published", [])
        entries = given if isinstance(given, list) else [given]
        return [_validated(Citation, entry, f"models.{model}.published.") for entry in entries]

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
        for name in self.run.inference:
            _known(name, self.inference, "run.inference")
        for study, models in self.studies.items():
            for model in models:
                _known(model, self.models, f"studies.{study}")
        self._check_trained("audit", self.run.audit)
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
        for model in self.models:
            for citation in self.citations(model):
                if citation.inference is not None:
                    _known(
                        citation.inference, self.inference, f"models.{model}.published.inference"
                    )
                try:
                    published_value(citation)
                except PublishedError as error:
                    raise ParamsError(f"models.{model}.published: {error}") from None
        for profile in self.run.profiles:
            for model in self.run.models:
                self._check_network(
                    self.experiment(_known(profile, self.profile, "run.profiles"), model)
                )

    def _check_network(self, experiment: Experiment) -> None:
        """Check that the architecture can have its arguments, in every phase and inference."""
        where = f"models.{experiment.model} under profile.{experiment.profile}"
        first = experiment.training
        if first.batch_norm == "frozen" and first.weights == "none":
            raise ParamsError(
                f"{where}: training.batch_norm 'frozen' keeps the statistics of pretrained weights:"
                " give training.weights, now 'none'"
            )
        ways = [self.inference[name] for name in self.run.inference]
        used = [phase.arguments for phase in experiment.phases]
        try:
            for arguments in [*used, *map(experiment.arguments_for, ways)]:
                check_arguments(experiment.architecture, arguments)
        except ValueError as error:
            raise ParamsError(f"{where}: {error}") from None

    def _check_trained(self, key: str, models: Sequence[str]) -> None:
        for model in models:
            if model not in self.run.models:
                raise ParamsError(
                    f"run.{key}: {model!r} is not in run.models{nearest(model, self.run.models)}"
                )

    def _check_crf(self) -> None:
        self._check_trained("crf", self.run.crf)
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
    except SettingsError as error:
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
    if {"atrous_rates", "output_stride"} <= arguments.keys() and "atrous_rates" not in block:
        if "output_stride" not in defaults:
            raise ParamsError(
                f"{where}.atrous_rates is missing: the profile's are of no stated output_stride"
            )
        arguments["atrous_rates"] = rates_at(
            arguments["output_stride"], arguments["atrous_rates"], defaults["output_stride"], where
        )
    return arguments


def _under(
    profile: str, block: Mapping[str, Any], profiles: Collection[str], where: str
) -> dict[str, Any]:
    """A model's block with what it says of this profile alone put over the rest."""
    merged = dict(block)
    particular = _mapping(merged.pop("under", {}), f"{where}.under")
    for name in particular:
        _known(name, profiles, f"{where}.under")
    own = _mapping(particular.get(profile, {}), f"{where}.under.{profile}")
    training = _mapping(merged.get("training", {}), f"{where}.training")
    merged |= own
    if "training" in own:
        merged["training"] = training | _mapping(own["training"], f"{where}.under.{profile}")
    return merged


def _second_phase(first: Experiment, then: Then, where: str) -> Phase:
    """What ``then`` says, and the first phase's settings where it is silent."""
    schedule = first.training.model_dump() | {"weights": "none"} | then.training
    arguments = first.arguments
    if then.output_stride is not None:
        arguments = at_output_stride(arguments, then.output_stride, f"{where}.then")
    return Phase(
        arguments=arguments, training=_validated(Training, schedule, f"{where}.then.training.")
    )


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
    key = re.sub(rf"\bdata\.({'|'.join(DATA_SETS)})\b", "data", key)
    if error["type"] == "extra_forbidden":
        *section, name = error["loc"]
        return f"{key} is not a known key{nearest(str(name), _keys_of(section, schema))}"
    if error["type"] == "missing":
        return f"{key} is missing"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key} is {json.dumps(error['input'])}: {message}"


def _keys_of(section: Sequence[str | int], schema: type[BaseModel]) -> Collection[str]:
    """The keys that a section of ``schema`` may have."""
    if section:
        parent, name = ("", *map(str, section))[-2:]
        if parent == "profile":
            return Profile.model_fields
        return (DATA_SETS if parent == "data" else SECTIONS)[name].model_fields
    if schema.__name__ in ARCHITECTURES:
        return {*schema.model_fields, "architecture", "published", "training", "then", "under"}
    return schema.model_fields


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParamsError(f"{where} is {json.dumps(value)}: it should be a mapping")
    return value


def _known(name: Any, valid: Collection[str], where: str) -> str:
    if not isinstance(name, str) or name not in valid:
        raise ParamsError(f"{where}: {name!r} is not defined{nearest(str(name), valid)}")
    return name
