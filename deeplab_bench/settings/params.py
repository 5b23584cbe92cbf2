"""All of params.yaml, and the settings of a model, a pretraining or a CRF resolved from it."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import Field, create_model

from deeplab_bench.models import check_arguments, list_arguments
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.base import Settings
from deeplab_bench.settings.blocks import ParamsError, apply_profile, require_known, require_mapping
from deeplab_bench.settings.cluster import Cluster
from deeplab_bench.settings.crf import CRF
from deeplab_bench.settings.experiment import (
    RATES,
    Experiment,
    Phase,
    change_output_stride,
    scale_rates,
)
from deeplab_bench.settings.inference import Inference
from deeplab_bench.settings.label_files import LabelFiles
from deeplab_bench.settings.pretraining import CLASSIFIER, PretrainingSettings, PretrainingTask
from deeplab_bench.settings.published import Citation
from deeplab_bench.settings.sections import Name, Profile, RunSettings, SecondPhase, Study, validate
from deeplab_bench.settings.training import Training

PREDICTIONS = "predictions"  # a block with this key is of label files


class Params(Settings):
    """All of params.yaml; every block of ``models`` is complete, its ``extends`` resolved.

    A block is that of a network, or says where label files are that another program predicted.
    """

    run: RunSettings
    profile: dict[Name, Profile]
    models: dict[Name, dict[str, Any]]
    inference: dict[Name, Inference]
    studies: dict[Name, Study] = Field(default_factory=dict)
    cluster: Cluster = Cluster()

    @property
    def networks(self) -> dict[str, dict[str, Any]]:
        """The blocks of networks, which are trained."""
        return {name: block for name, block in self.models.items() if PREDICTIONS not in block}

    @property
    def files_of_others(self) -> dict[str, dict[str, Any]]:
        """The blocks of label files that another program predicted."""
        return {name: block for name, block in self.models.items() if PREDICTIONS in block}

    def label_files(self, profile: str, model: str) -> LabelFiles:
        """Return where the label files of a model of others are, for the images of a profile.

        Raises:
            ParamsError: either is undefined, or the block has further keys.
        """
        block = self.models[require_known(model, self.files_of_others, "run.label_files")]
        block = apply_profile(profile, block, self.profile, f"models.{model}")
        return validate(LabelFiles, block, f"models.{model}.")

    def experiment(self, profile: str, model: str) -> Experiment:
        """Resolve all settings of a model under a profile.

        Raises:
            ParamsError: either is undefined, or the model's block does not fit its architecture.
        """
        settings = self.profile[require_known(profile, self.profile, "run.profiles")]
        block = dict(self.models[require_known(model, self.networks, "run.models")])
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
            training=validate(Training, schedule, f"{where}.training."),
            process=settings.process,
        )
        if second is None:
            return experiment
        changes = validate(SecondPhase, second, f"{where}.second_phase.")
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

    def with_profile(self, profile: str) -> "Params":
        """Return parameters under which a profile runs: these, or those of :meth:`for_profile`.

        Raises:
            ParamsError: the profile is undefined.
        """
        return self if profile in self.run.profiles else self.for_profile(profile)

    def for_profile(self, profile: str) -> "Params":
        """Return these parameters as ``make repro PROFILE=<profile>`` changes them.

        If another profile runs now, the lists of the profile's own ``run`` take the place of those
        of ``run``, and models that are no longer there leave ``crf`` and ``audit``. Label files are
        of the images of one profile: without a list of its own, it has none.

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
        kept |= {"profiles": (profile,), "label_files": ()}
        run = self.run.model_copy(update=kept | lists)
        return self.model_copy(update={"run": run})

    def citations(self, model: str) -> list[Citation]:
        """List the published rows that a model's block cites.

        Raises:
            ParamsError: one of them is not a citation.
        """
        given = self.models[model].get("published", [])
        entries = given if isinstance(given, list) else [given]
        return [validate(Citation, entry, f"models.{model}.published.") for entry in entries]

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
            training=validate(Training, schedule, f"{where}.training."),
        )
        try:
            check_arguments_in_json(CLASSIFIER, json.dumps(experiment.arguments))
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


def _arguments(
    architecture: str, defaults: Mapping[str, Any], block: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return the profile's values of the architecture's arguments, overridden by the block's."""
    schema = _schema(architecture)
    shared = {name: value for name, value in defaults.items() if name in schema.model_fields}
    arguments = validate(schema, shared | dict(block), f"{where}.").model_dump(mode="json")
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
def check_arguments_in_json(architecture: str, arguments: str) -> None:
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
        training=validate(Training, schedule, f"{where}.training."),
        train_split=changes.train_split or "train",
    )
