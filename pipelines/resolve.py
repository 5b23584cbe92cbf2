"""Stage ``resolve``: params.yaml and the code to one file of settings for every stage and model.

A stage depends on its own file alone: no edit of params.yaml, of a comment or of another
architecture makes a result stale that it does not change.
"""

from collections.abc import Iterator

from deeplab_bench.data.registry import DataSettings
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import write_settings
from deeplab_bench.settings.base import Settings
from deeplab_bench.settings.blocks import require_known
from deeplab_bench.settings.params import Params, load_params
from deeplab_bench.settings.schema import StageSettings

OF_EVERY_MODEL = ("train", "receptive_field", "speed")


def main(profile: str) -> None:
    """
    Raises:
        ParamsError: params.yaml is wrong, or does not define the profile.
    """
    params, files = load_params(), ProfileFiles(profile)
    require_known(profile, params.profile, "profile")
    data = DataSettings(data=params.profile[profile].data)
    write_settings(files.settings("download"), "download", data)
    write_settings(files.settings("prepare"), "prepare", data)
    write_settings(files.settings("report"), "report", Settings())
    for stage, variant, settings in resolve_runs(params, profile):
        experiment = settings.experiment
        file = files.settings(stage, *variant, experiment.model)
        write_settings(file, stage, settings, experiment.architecture)


def resolve_runs(
    params: Params, profile: str
) -> Iterator[tuple[str, tuple[str, ...], StageSettings]]:
    """Yield the stages that work on one model: name, way of inference if any, settings."""
    for model in params.run.models:
        experiment = params.experiment(profile, model)
        plain = StageSettings(experiment=experiment)
        for stage in OF_EVERY_MODEL:
            yield stage, (), plain
        for name in params.run.inference:
            yield "evaluate", (name,), plain.with_inference(params.inference[name])
        if model in params.run.crf:
            yield "crf", (), plain.with_crf(params.crf(profile))
        if model in params.run.audit:
            yield "audit", (), plain
