"""Stage ``resolve``: params.yaml and the code to one file of settings for every stage and model.

A stage depends on its own file alone: no edit of params.yaml, of a comment or of another
architecture makes a result stale that it does not change.
"""

from collections.abc import Iterator

from deeplab_bench.data.registry import DataSettings
from deeplab_bench.settings.base import Settings

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import StageSettings, write_settings
from deeplab_bench.settings.params import Params, load_params

OF_EVERY_MODEL = ("train", "receptive_field", "speed")


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    for stage, names, settings in resolve(load_params(), profile):
        write_settings(files.settings(stage, *names), stage, settings)


def resolve(params: Params, profile: str) -> Iterator[tuple[str, tuple[str, ...], Settings]]:
    """Yield each stage's settings, with the names that tell its file from the stage's others."""
    data = DataSettings(data=params.profile[profile].data)
    for stage in ("download", "prepare"):
        yield stage, (), data
    yield "report", (), Settings()
    for model in params.run.models:
        experiment = params.experiment(profile, model)
        for stage in OF_EVERY_MODEL:
            yield stage, (model,), StageSettings(experiment=experiment)
        for inference in params.run.inference:
            settings = StageSettings(experiment=experiment, inference=params.inference[inference])
            yield "evaluate", (inference, model), settings
        if model in params.run.crf:
            yield "crf", (model,), StageSettings(experiment=experiment, crf=params.crf(profile))
        if model in params.run.audit:
            yield "audit", (model,), StageSettings(experiment=experiment)
