"""A trained run, as the stages after the training take it up and stamp what they make of it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from deeplab_bench.data.packed import Split, load_split, read_manifest
from deeplab_bench.evaluation.checkpoint import Checkpoint, open_checkpoint
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.settings.schema import Experiment, StageSettings


@dataclass(frozen=True)
class TrainedRun:
    """A run whose checkpoint is there, and the stage that works on it."""

    stage: str
    files: RunFiles
    settings: StageSettings
    checkpoint: Checkpoint

    @property
    def experiment(self) -> Experiment:
        return self.settings.experiment

    @property
    def data_folder(self) -> Path:
        return ProfileFiles(self.files.profile).data

    @cached_property
    def validation_split(self) -> Split:
        return load_split(self.data_folder, "val")

    @cached_property
    def trained_on_val(self) -> bool:
        """Whether a phase of the training saw images of val: their scores mean nothing then."""
        splits = read_manifest(self.data_folder)["splits"]
        val = set(splits["val"]["names"])
        return any(
            not val.isdisjoint(splits[phase.train_split]["names"])
            for phase in self.experiment.phases
        )

    def stamp(self, content: dict[str, Any]) -> dict[str, Any]:
        """Put before a result which run it is of and what it was made from."""
        provenance = self.checkpoint.provenance.after(self.stage, self.experiment.architecture)
        identity = {
            "profile": self.files.profile,
            "model": self.files.model,
            "seed": self.files.seed,
            "provenance": provenance.model_dump(),
            "trained_on_val": self.trained_on_val,
        }
        return identity | content


def open_trained_run(stage: str, profile: str, model: str, seed: int, *variant: str) -> TrainedRun:
    """Open the checkpoint of a run for a stage; ``variant`` names a way of inference.

    Raises:
        CheckpointError: the checkpoint is missing, or was made from something else.
        SettingsError: the settings are missing, or of older code.
    """
    files, of_profile = RunFiles(profile, model, seed), ProfileFiles(profile)
    settings_file = of_profile.settings(stage, *variant, model)
    settings = read_settings(settings_file, stage, StageSettings)
    expected = derive_provenance(settings.experiment, seed, of_profile.data)
    return TrainedRun(stage, files, settings, open_checkpoint(files.checkpoint, expected))
