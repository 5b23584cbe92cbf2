"""params.yaml resolved into files of settings, one for each thing that stages work on.

What is trained and scored depends on its own files alone: an edit of params.yaml, or of another
architecture, makes no result stale that it does not move.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deeplab_bench.models import module_of
from deeplab_bench.results.files import crf_settings_file, experiment_file, inference_settings_file
from deeplab_bench.results.provenance import ROOT, code_sha256, imported_files
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.writing import write_json


def write_settings(params: Params, profile: str) -> None:
    """Write the files of all that ``run`` names; ``read_settings`` reads them."""
    for path, record in records(params, profile, params.run.models).items():
        write_json(path, record)


def records(params: Params, profile: str, models: Sequence[str]) -> dict[Path, dict[str, Any]]:
    """The content of every file; that of a model has a digest of its architecture's code, too."""
    found = {
        experiment_file(profile, model): experiment_record(params.experiment(profile, model))
        for model in models
    }
    for name in params.run.inference:
        settings = params.inference[name].model_dump(mode="json")
        found[inference_settings_file(profile, name)] = {"settings": settings}
    if params.run.crf:
        settings = params.crf(profile).model_dump(mode="json")
        found[crf_settings_file(profile)] = {"settings": settings}
    return found


def experiment_record(experiment: Experiment) -> dict[str, Any]:
    return {
        "settings": experiment.model_dump(mode="json"),
        "network_sha256": code_sha256(module_of(experiment.architecture)),
    }


def file_digests(module: str) -> dict[str, str]:
    """Of the files that a module is made of; where results lie, ``paths``, moves nothing in them.

    Architectures are not among them: each has its digest among the settings of its models.
    """
    files = [path for path in imported_files([module]) if path != "deeplab_bench/paths.py"]
    return {path: hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in files}
