"""Trained runs, shared by the stages after training: opened and checked, results stamped."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from deeplab_bench.data.packed import Split, load_split, read_manifest
from deeplab_bench.evaluation.checkpoint import Checkpoint, open_checkpoint
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.settings.experiment import Experiment, StageSettings

SettingsOfStage = TypeVar("SettingsOfStage", bound=StageSettings)


@dataclass(frozen=True)
class TrainedRun(Generic[SettingsOfStage]):
    """A run with its checkpoint, and the stage that uses it."""

    stage: str
    files: RunFiles
    settings: SettingsOfStage
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
    def training_split(self) -> Split:
        """The split of the first phase of training."""
        return load_split(self.data_folder, "train")

    @cached_property
    def trained_on_val(self) -> bool:
        """True if a phase of the training saw images of val; their scores then mean nothing."""
        splits = read_manifest(self.data_folder)["splits"]
        val = set(splits["val"]["names"])
        return any(
            not val.isdisjoint(splits[phase.train_split]["names"])
            for phase in self.experiment.phases
        )

    def stamp(self, content: dict[str, Any]) -> dict[str, Any]:
        """Add the run's identity and provenance in front of a result's content."""
        provenance = self.checkpoint.provenance.after(self.stage, self.experiment.architecture)
        identity = {
            "profile": self.files.profile,
            "model": self.files.model,
            "seed": self.files.seed,
            "provenance": provenance.model_dump(),
            "trained_on_val": self.trained_on_val,
        }
        return identity | content


def open_trained_run(
    stage: str, profile: str, *names: str, seed: int, schema: type[SettingsOfStage]
) -> TrainedRun[SettingsOfStage]:
    """Open the checkpoint of a run for a stage.

    ``names`` are the way of inference, if the stage has one, and the model.

    Raises:
        CheckpointError: the checkpoint is missing, or was made from other settings, data or code.
        SettingsError: the settings are missing, or were written by older code.
    """
    files, of_profile = RunFiles(profile, names[-1], seed), ProfileFiles(profile)
    settings = read_settings(of_profile, stage, *names, schema=schema)
    expected = derive_provenance(settings.experiment, seed, of_profile.data)
    return TrainedRun(stage, files, settings, open_checkpoint(files.checkpoint, expected))
