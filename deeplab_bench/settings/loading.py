"""The reader of params.yaml: checks the whole file before any work, returns frozen settings.

A mistake anywhere in it is one ``ParamsError``, which names the key,
the value and the nearest valid one.
"""

import json
from pathlib import Path
from typing import Any, cast

from pydantic import create_model

from deeplab_bench.errors import suggest_nearest
from deeplab_bench.models import list_arguments
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.settings.blocks import ParamsError, complete_blocks, require_known
from deeplab_bench.settings.experiment import PRETRAINED, Experiment
from deeplab_bench.settings.inference import PLAIN, Inference
from deeplab_bench.settings.params import PREDICTIONS, Params, check_arguments_in_json
from deeplab_bench.settings.params_file import PARAMS_FILE, parse_yaml, read_params_file
from deeplab_bench.settings.published import PublishedError, find_published
from deeplab_bench.settings.sections import ProfileRun, RunSettings, validate


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read a parameter file.

    Raises:
        ParamsError: anything in the file is wrong.
    """
    return parse_params(read_params_file(path), path)


def parse_params(text: str, path: Path) -> Params:
    """Parse the text of a parameter file, complete its blocks, and check all of it.

    Raises:
        ParamsError: anything is wrong; the message begins with ``path``.
    """
    content = parse_yaml(text, path)
    try:
        params = validate(Params, content)
        params = params.model_copy(update={"models": complete_blocks(params.models)})
        check_params(params)
    except SettingsError as error:
        raise ParamsError(f"{path}: {error}") from None
    return params


def check_params(params: Params) -> None:
    """Check that all entries fit each other, also those that no run uses.

    Raises:
        ParamsError: some entries do not fit.
    """
    check_run(params)
    check_studies(params)
    check_crf(params)
    check_profiles(params)
    check_citations(params)
    for profile in params.run.profiles:
        for model in params.run.models:
            check_network(params, params.experiment(profile, model))
        for model in params.run.label_files:
            params.label_files(profile, model)


def check_run(params: Params) -> None:
    if params.inference.get(PLAIN, Inference()) != Inference():
        raise ParamsError(f"inference.{PLAIN} should be {{}}: one pass at scale 1")
    check_lists(params, params.run, "run")


def check_lists(params: Params, run: RunSettings | ProfileRun, where: str) -> None:
    """Check that the lists that are given fit each other, and what is defined."""
    lists = run.model_dump(exclude_none=True)
    for key, values in lists.items():
        if len(set(values)) < len(values):
            raise ParamsError(f"{where}.{key} {list(values)} names one of them twice")
    networks, files = params.networks, params.files_of_others
    models = lists.get("models", tuple(networks))
    for model in models:
        if model in files:
            raise ParamsError(
                f"{where}.models: {model!r} is of label files: move it to {where}.label_files"
            )
        require_known(model, networks, f"{where}.models")
    for model in lists.get("label_files", ()):
        if model in networks:
            raise ParamsError(
                f"{where}.label_files: models.{model} lacks the key {PREDICTIONS!r}, the folder of "
                "its label PNGs"
            )
        require_known(model, files, f"{where}.label_files")
    for name in lists.get("inference", ()):
        require_known(name, params.inference, f"{where}.inference")
    if PLAIN not in lists.get("inference", (PLAIN,)):
        raise ParamsError(
            f"{where}.inference lacks {PLAIN!r}, which gives the accuracy table: add it"
        )
    for key in ("audit", "crf"):
        for model in lists.get(key, ()):
            require_known(model, networks, f"{where}.{key}")
            if model not in models:
                suggestion = suggest_nearest(model, models)
                raise ParamsError(f"{where}.{key}: {model!r} is not in {where}.models{suggestion}")


def check_studies(params: Params) -> None:
    for name, study in params.studies.items():
        for model in study.models:
            require_known(model, params.networks, f"studies.{name}.models")
        for way in study.inference:
            require_known(way, params.inference, f"studies.{name}.inference")
        for model in study.crf:
            require_known(model, study.models, f"studies.{name}.crf")


def check_profiles(params: Params) -> None:
    """Check all arguments in each profile's ``model``, and every model under the profile."""
    every_argument = {
        name: (p.annotation, None)
        for architecture in ARCHITECTURES
        for name, p in list_arguments(architecture).items()
    }
    schema = create_model("model", __base__=Settings, **cast(Any, every_argument))
    for profile, settings in params.profile.items():
        validate(schema, settings.model, f"profile.{profile}.model.")
        if settings.run is not None:
            check_lists(params, settings.run, f"profile.{profile}.run")
        params.pretraining(profile)
        for model in params.networks:
            params.experiment(profile, model)


def check_citations(params: Params) -> None:
    for model in params.networks:
        where = f"models.{model}.published"
        for citation in params.citations(model):
            if citation.inference is not None:
                require_known(citation.inference, params.inference, f"{where}.inference")
            try:
                find_published(citation)
            except PublishedError as error:
                raise ParamsError(f"{where}: {error}") from None


def check_network(params: Params, experiment: Experiment) -> None:
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
        check_pretrained(params, experiment, where)
    strides = [params.inference[name].output_stride for name in params.run.inference]
    used = [phase.arguments for phase in experiment.phases]
    try:
        for arguments in [*used, *map(experiment.arguments_at, strides)]:
            check_arguments_in_json(experiment.architecture, json.dumps(arguments))
    except ValueError as error:
        raise ParamsError(f"{where}: {error}") from None


def check_pretrained(params: Params, experiment: Experiment, where: str) -> None:
    """Check that the weights of the stage ``pretrain`` are of the model's backbone."""
    task = params.pretraining(experiment.profile).task
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


def check_crf(params: Params) -> None:
    for profile in params.run.profiles if params.run.crf else ():
        params.crf(profile)
