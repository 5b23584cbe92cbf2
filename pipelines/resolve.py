"""Stage ``resolve``: write one file of settings for every stage and model.

The file holds the stage's settings from params.yaml and a digest of its code. A stage depends only
on its own file. So its results stay valid if something else changes: another entry of params.yaml,
a comment, or another architecture.
"""

from collections.abc import Iterator
from pathlib import Path

from deeplab_bench.data.dataset import DataSettings
from deeplab_bench.models import get_module_name
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import write_settings
from deeplab_bench.settings.base import Settings
from deeplab_bench.settings.blocks import ParamsError, require_known
from deeplab_bench.settings.crf import CRFSettings
from deeplab_bench.settings.experiment import StageSettings
from deeplab_bench.settings.inference import EvaluationSettings
from deeplab_bench.settings.label_files import LabelFiles
from deeplab_bench.settings.loading import load_params
from deeplab_bench.settings.params import Params
from deeplab_bench.settings.process import Process
from deeplab_bench.writing import write_json
from pipelines.stages import STAGES

UNPINNED = Process()  # for the stages that measure the machine
OF_EVERY_MODEL = ("train", "receptive_field", "speed")


def main(profile: str) -> None:
    """Write the files of settings of all stages of a profile.

    Raises:
        ParamsError: params.yaml is wrong, or does not define the profile.
        DataError: a file that the profile's data name is missing or wrong.
    """
    params, files = load_params(), ProfileFiles(profile)
    require_known(profile, params.profile, "profile")
    data, process = params.profile[profile].data, params.profile[profile].process
    write_json(files.process_settings, process.model_dump())
    of_data = DataSettings(data=data.model_dump(mode="json"), files_sha256=data.digest_files())
    for stage in ("download", "prepare"):
        write_settings(
            files, stage, settings=of_data, process=process, module=type(data).__module__
        )
    pretraining = params.pretraining(profile)
    module = None if pretraining.task is None else type(data).__module__
    write_settings(files, "pretrain", settings=pretraining, process=process, module=module)
    write_settings(files, "report", settings=Settings(), process=process)
    for stage, inference, settings in resolve_runs(params, profile):
        experiment = settings.experiment
        module = get_module_name(experiment.architecture)
        names = (*inference, experiment.model)
        of_stage = UNPINNED if STAGES[stage].cold else process
        write_settings(files, stage, *names, settings=settings, process=of_stage, module=module)
    for model in params.run.label_files:
        link_label_files(files.label_folder(model), params.label_files(profile, model), model)
        write_settings(files, "label_files", model, settings=Settings(), process=process)


def link_label_files(link: Path, label_files: LabelFiles, model: str) -> None:
    """Link the folder of label files to the place where DVC looks at them.

    Raises:
        ParamsError: it is no folder.
    """
    folder = Path(label_files.predictions)
    if not folder.is_dir():
        raise ParamsError(f"models.{model}.predictions: {folder} is no folder")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder.resolve())


def resolve_runs(
    params: Params, profile: str
) -> Iterator[tuple[str, tuple[str, ...], StageSettings]]:
    """Yield, for each stage of each model: name, way of inference if any, settings."""
    for model in params.run.models:
        experiment = params.experiment(profile, model)
        plain = StageSettings(experiment=experiment)
        for stage in OF_EVERY_MODEL:
            yield stage, (), plain
        for name in params.run.inference:
            inference = params.inference[name]
            yield (
                "evaluate",
                (name,),
                EvaluationSettings(experiment=experiment, inference=inference),
            )
        if model in params.run.crf:
            yield "crf", (), CRFSettings(experiment=experiment, crf=params.crf(profile))
        if model in params.run.audit:
            yield "audit", (), plain
