"""The reader of params.yaml: checks the whole file before any work, returns frozen settings.

Nothing else reads the file. A mistake anywhere in it is one ``ParamsError``, which names the key,
the value and the nearest valid one.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError, create_model, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from deeplab_bench.data.registry import DATA_SETS, Data
from deeplab_bench.errors import suggest_nearest
from deeplab_bench.models import check_arguments, list_arguments
from deeplab_bench.models.backbone import OutputStride
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.base import PositiveInt, Settings, SettingsError
from deeplab_bench.settings.blocks import (
    ParamsError,
    apply_profile,
    complete_blocks,
    require_known,
    require_mapping,
)
from deeplab_bench.settings.cluster import Cluster, Resources
from deeplab_bench.settings.crf import CRF, CRFSearch
from deeplab_bench.settings.experiment import (
    PRETRAINED,
    RATES,
    Experiment,
    Phase,
    change_output_stride,
    scale_rates,
)
from deeplab_bench.settings.inference import PLAIN, Inference
from deeplab_bench.settings.pretraining import (
    CLASSIFIER,
    Pretraining,
    PretrainingSettings,
    PretrainingTask,
)
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.published import Citation, PublishedError, find_published
from deeplab_bench.settings.training import Training

PARAMS_FILE = Path("params.yaml")

NAME_PATTERN = r"^[A-Za-z0-9_.]+$"  # a name becomes part of a path
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Percent = Annotated[float, Field(gt=0, le=100)]


class SecondPhase(Settings):
    """Changes for a second phase of training, which starts from the weights of the first.

    ``train_split`` is one of the data's ``further_splits``; None is the split of the first phase.
    """

    output_stride: OutputStride | None = None
    train_split: str | None = None
    training: dict[str, Any]


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
Models = Annotated[tuple[Name, ...], Field(min_length=1)]


class RunSettings(Settings):
    """The lists that the stages of ``dvc repro`` run over."""

    profiles: Annotated[tuple[Name, ...], Field(min_length=1)]
    models: Models
    seeds: Seeds
    hardware: tuple[Name, ...]
    inference: tuple[Name, ...]
    crf: tuple[Name, ...]
    audit: tuple[Name, ...]


class ProfileRun(Settings):
    """Lists of ``run`` that belong to a profile. A list that is not given stays as it is."""

    models: Models | None = None
    seeds: Seeds | None = None
    hardware: tuple[Name, ...] | None = None
    inference: tuple[Name, ...] | None = None
    crf: tuple[Name, ...] | None = None
    audit: tuple[Name, ...] | None = None


class Profile(Settings):
    """A data set, and the backbone and schedule that all models are compared with on it.

    ``model`` holds arguments of architectures by name. Each architecture takes those it knows. The
    report marks an mIoU above ``miou_ceiling``, in percent, as implausible. ``process`` says what
    results may depend on. With ``pretraining``, the stage ``pretrain`` makes weights of the
    profile's backbone, from which models start whose ``training.weights`` are ``pretrained``.
    ``make repro PROFILE=<name>`` puts the lists of ``run`` into the section ``run``. ``resources``
    say what a stage asks a machine of a cluster for.
    """

    data: Data
    process: Process = Process()
    miou_ceiling: Percent | None = None
    model: dict[str, Any]
    training: Training
    pretraining: Pretraining | None = None
    crf: CRF | None = None
    run: ProfileRun | None = None
    resources: Resources = Resources()


class Study(Settings):
    """Models that answer one question together, most often the rows of one published table.

    ``hours`` are GPU hours of training all models from 3 seeds under the profile ``voc2012``, if
    the GPU sustains 100 TFLOP/s. They are computed from the number of operations, not measured.
    ``expect`` is the lowest and the highest published mIoU, in percent, of the rows of ``paper``
    that the models cite. It is absent if the paper has no such number on VOC 2012. Some of these
    rows need ``inference`` or ``crf``, the values of the same keys of ``run``.
    """

    paper: str
    question: str
    hours: PositiveInt
    expect: tuple[Percent, Percent] | None = None
    models: Models
    inference: tuple[Name, ...] = ()
    crf: tuple[Name, ...] = ()

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


class Params(Settings):
    """All of params.yaml; every block of ``models`` is complete, its ``extends`` resolved."""

    run: RunSettings
    profile: dict[Name, Profile]
    models: dict[Name, dict[str, Any]]
    inference: dict[Name, Inference]
    studies: dict[Name, Study] = Field(default_factory=dict)
    cluster: Cluster = Cluster()

    def experiment(self, profile: str, model: str) -> Experiment:
        """Resolve all settings of a model under a profile.

        Raises:
            ParamsError: either is undefined, or the model's block does not fit its architecture.
        """
        settings = self.profile[require_known(profile, self.profile, "run.profiles")]
        block = dict(self.models[require_known(model, self.models, "run.models")])
        where = f"models.{model}"
        block = apply_profile(profile, block, self.profile, where)
        if "architecture" not in block:
            raise ParamsError(f"{where} needs the key 'architecture'")
        architecture = require_known(
            block.pop("architecture"), ARCHITECTURES, f"{where}.architecture"
        )
        block.pop("published", None)  # a citation is no setting
        overrides = require_mapping(block.pop("training", {}), f"{where}.training")
        schedule = settings.training.model_dump() | overrides
        second = block.pop("second_phase", None)
        experiment = Experiment(
            profile=profile,
            model=model,
            architecture=architecture,
            arguments=_arguments(architecture, settings.model, block, where),
            training=_validated(Training, schedule, f"{where}.training."),
            process=settings.process,
        )
        if second is None:
            return experiment
        changes = _validated(SecondPhase, second, f"{where}.second_phase.")
        if changes.train_split not in (None, *settings.data.list_further_splits()):
            raise ParamsError(
                f"{where}.second_phase.train_split {changes.train_split!r} is not in "
                f"profile.{profile}.data.further_splits"
            )
        return experiment.model_copy(
            update={"second_phase": _second_phase(experiment, changes, where)}
        )

    def pick_profile(self, given: str) -> str:
        """Return the profile of an option ``--profile``; if it is empty, the first that runs.

        Raises:
            ParamsError: the profile is undefined.
        """
        return require_known(given or self.run.profiles[0], self.profile, "--profile")

    def for_profile(self, profile: str) -> "Params":
        """Return these parameters as ``make repro PROFILE=<profile>`` changes them.

        If another profile runs now, the lists of the profile's own ``run`` take the place of those
        of ``run``, and models that are no longer there leave ``crf`` and ``audit``.

        Raises:
            ParamsError: the profile is undefined.
        """
        own = self.profile[require_known(profile, self.profile, "run.profiles")].run
        if self.run.profiles == (profile,):
            return self
        lists = {} if own is None else own.model_dump(exclude_none=True)
        models = lists.get("models", self.run.models)
        kept = {"crf": self.run.crf, "audit": self.run.audit}
        kept = {key: tuple(name for name in names if name in models) for key, names in kept.items()}
        run = self.run.model_copy(update={"profiles": (profile,)} | kept | lists)
        return self.model_copy(update={"run": run})

    def citations(self, model: str) -> list[Citation]:
        """List the published rows that a model's block cites.

        Raises:
            ParamsError: one of them is not a citation.
        """
        given = self.models[model].get("published", [])
        entries = given if isinstance(given, list) else [given]
        return [_validated(Citation, entry, f"models.{model}.published.") for entry in entries]

    def pretraining(self, profile: str) -> PretrainingSettings:
        """Resolve all settings of a profile's pretraining.

        Raises:
            ParamsError: the profile cannot be pretrained with its settings.
        """
        settings = self.profile[require_known(profile, self.profile, "run.profiles")]
        given, where = settings.pretraining, f"profile.{profile}.pretraining"
        if given is None:
            return PretrainingSettings()
        if not settings.data.generated:
            raise ParamsError(
                f"{where}: {settings.data.dataset!r} generates no images of single objects: "
                "pretrain elsewhere, and give the file as training.weights"
            )
        whole_images = {
            "crop_size": (given.image_size, given.image_size),
            "random_scale": (1.0, 1.0),
            "loss_resolution": "logits",
            "class_balancing": 0.0,
            "weights": "none",
        }
        if fixed := whole_images.keys() & given.training.keys():
            raise ParamsError(f"{where}.training.{min(fixed)} cannot be set: images are seen whole")
        schedule = settings.training.model_dump() | given.training | whole_images
        experiment = Experiment(
            profile=profile,
            model=CLASSIFIER,
            architecture=CLASSIFIER,
            arguments=_arguments(CLASSIFIER, settings.model, {}, where),
            training=_validated(Training, schedule, f"{where}.training."),
        )
        try:
            _check_arguments(CLASSIFIER, json.dumps(experiment.arguments))
        except ValueError as error:
            raise ParamsError(f"{where}: {error}") from None
        task = PretrainingTask(
            data=settings.data.model_dump(mode="json"),
            images=given.images,
            held_out_images=given.held_out_images,
            image_size=given.image_size,
            experiment=experiment,
        )
        return PretrainingSettings(task=task)

    def crf(self, profile: str) -> CRF:
        """Return the settings of the CRF under a profile.

        Raises:
            ParamsError: the profile is undefined, or has no such section.
        """
        settings = self.profile[require_known(profile, self.profile, "run.profiles")].crf
        if settings is None:
            raise ParamsError(f"profile.{profile}.crf is missing: run.crf needs it")
        return settings

    def check(self) -> None:
        """Check that all entries fit each other, also those that no run uses.

        Raises:
            ParamsError: some entries do not fit.
        """
        self._check_run()
        self._check_studies()
        self._check_crf()
        self._check_profiles()
        self._check_citations()
        for profile in self.run.profiles:
            for model in self.run.models:
                self._check_network(self.experiment(profile, model))

    def _check_run(self) -> None:
        if self.inference.get(PLAIN, Inference()) != Inference():
            raise ParamsError(f"inference.{PLAIN} should be {{}}: one pass at scale 1")
        self._check_lists(self.run, "run")

    def _check_lists(self, run: RunSettings | ProfileRun, where: str) -> None:
        """Check that the lists that are given fit each other, and what is defined."""
        lists = run.model_dump(exclude_none=True)
        for key, values in lists.items():
            if len(set(values)) < len(values):
                raise ParamsError(f"{where}.{key} {list(values)} names one of them twice")
        models = lists.get("models", tuple(self.models))
        for model in models:
            require_known(model, self.models, f"{where}.models")
        for name in lists.get("inference", ()):
            require_known(name, self.inference, f"{where}.inference")
        if PLAIN not in lists.get("inference", (PLAIN,)):
            raise ParamsError(
                f"{where}.inference lacks {PLAIN!r}, which gives the accuracy table: add it"
            )
        for key in ("audit", "crf"):
            for model in lists.get(key, ()):
                require_known(model, self.models, f"{where}.{key}")
                if model not in models:
                    suggestion = suggest_nearest(model, models)
                    raise ParamsError(
                        f"{where}.{key}: {model!r} is not in {where}.models{suggestion}"
                    )

    def _check_studies(self) -> None:
        for name, study in self.studies.items():
            for model in study.models:
                require_known(model, self.models, f"studies.{name}.models")
            for way in study.inference:
                require_known(way, self.inference, f"studies.{name}.inference")
            for model in study.crf:
                require_known(model, study.models, f"studies.{name}.crf")

    def _check_profiles(self) -> None:
        """Check all arguments in each profile's ``model``, and every model under the profile."""
        every_argument = {
            name: (p.annotation, None)
            for architecture in ARCHITECTURES
            for name, p in list_arguments(architecture).items()
        }
        schema = create_model("model", __base__=Settings, **cast(Any, every_argument))
        for profile, settings in self.profile.items():
            _validated(schema, settings.model, f"profile.{profile}.model.")
            if settings.run is not None:
                self._check_lists(settings.run, f"profile.{profile}.run")
            self.pretraining(profile)
            for model in self.models:
                self.experiment(profile, model)

    def _check_citations(self) -> None:
        for model in self.models:
            where = f"models.{model}.published"
            for citation in self.citations(model):
                if citation.inference is not None:
                    require_known(citation.inference, self.inference, f"{where}.inference")
                try:
                    find_published(citation)
                except PublishedError as error:
                    raise ParamsError(f"{where}: {error}") from None

    def _check_network(self, experiment: Experiment) -> None:
        """Check that the network can be built for every phase and every way of inference."""
        where = f"models.{experiment.model} under profile.{experiment.profile}"
        first = experiment.training
        if "backbone" not in experiment.arguments:
            off = {"weights": "none", "zero_init_residual": False, "batch_norm": "train"}
            for key, value in off.items():
                if getattr(first, key) != value:
                    raise ParamsError(
                        f"{where}: the architecture has no backbone of ours, which "
                        f"training.{key} needs: set it to {json.dumps(value)}"
                    )
        if first.batch_norm == "frozen" and first.weights == "none":
            raise ParamsError(
                f"{where}: training.batch_norm 'frozen' keeps the statistics of pretrained weights:"
                " give training.weights, now 'none'"
            )
        if first.weights == PRETRAINED:
            self._check_pretrained(experiment, where)
        strides = [self.inference[name].output_stride for name in self.run.inference]
        used = [phase.arguments for phase in experiment.phases]
        try:
            for arguments in [*used, *map(experiment.arguments_at, strides)]:
                _check_arguments(experiment.architecture, json.dumps(arguments))
        except ValueError as error:
            raise ParamsError(f"{where}: {error}") from None

    def _check_pretrained(self, experiment: Experiment, where: str) -> None:
        """Check that the weights of the stage ``pretrain`` are of the model's backbone."""
        task = self.pretraining(experiment.profile).task
        if task is None:
            raise ParamsError(
                f"{where}: training.weights 'pretrained' needs profile.{experiment.profile}."
                "pretraining, which is missing"
            )
        for key, value in task.experiment.arguments.items():
            if (own := experiment.arguments.get(key)) != value:
                raise ParamsError(
                    f"{where}: {key} is {own}, but the pretrained weights are of {key} {value}: "
                    "give training.weights 'none' or a file of its own"
                )

    def _check_crf(self) -> None:
        for profile in self.run.profiles if self.run.crf else ():
            self.crf(profile)


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read a parameter file.

    Raises:
        ParamsError: anything in the file is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run from the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from None
    return parse_params(text, path)


def parse_params(text: str, path: Path) -> Params:
    """Parse the text of a parameter file, complete its blocks, and check all of it.

    Raises:
        ParamsError: anything is wrong; the message begins with ``path``.
    """
    try:
        content = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    try:
        params = _validated(Params, content)
        params = params.model_copy(update={"models": complete_blocks(params.models)})
        params.check()
    except SettingsError as error:
        raise ParamsError(f"{path}: {error}") from None
    return params


def _arguments(
    architecture: str, defaults: Mapping[str, Any], block: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the profile's values of the architecture's arguments, overridden by the block's."""
    schema = _schema(architecture)
    shared = {name: value for name, value in defaults.items() if name in schema.model_fields}
    arguments = _validated(schema, shared | dict(block), f"{where}.").model_dump(mode="json")
    from_profile = {name for name in RATES if name in defaults and name not in block}
    if "output_stride" in arguments and (taken := from_profile & arguments.keys()):
        if "output_stride" not in defaults:
            raise ParamsError(
                f"{where}.{min(taken)} is missing: the profile's is of no stated output_stride"
            )
        stride = arguments["output_stride"]
        arguments |= scale_rates(arguments, taken, defaults["output_stride"], stride, where)
    return arguments


@cache
def _check_arguments(architecture: str, arguments: str) -> None:
    """Check arguments, given in JSON, once: it takes a tenth of a second."""
    check_arguments(architecture, json.loads(arguments))


@cache
def _schema(architecture: str) -> type[Settings]:
    fields: dict[str, Any] = {
        name: (p.annotation, ... if p.default is p.empty else p.default)
        for name, p in list_arguments(architecture).items()
    }
    return create_model(architecture, __base__=Settings, **fields)


def _second_phase(first: Experiment, changes: SecondPhase, where: str) -> Phase:
    """Return the first phase with the changes of the second; no weights are loaded again."""
    where = f"{where}.second_phase"
    schedule = first.training.model_dump() | {"weights": "none"} | changes.training
    arguments = first.arguments
    if changes.output_stride is not None:
        arguments = change_output_stride(arguments, changes.output_stride, where)
    return Phase(
        arguments=arguments,
        training=_validated(Training, schedule, f"{where}.training."),
        train_split=changes.train_split or "train",
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
