"""Checkpoints: reading, verification, and the network built from them."""

import json
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError

from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.settings.experiment import Experiment


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network's ``weights``, its settings, and the loss over its training."""

    weights: dict[str, torch.Tensor]
    classes: list[str]
    history: dict[str, Any]
    experiment: Experiment
    provenance: Provenance

    def build_model(self, output_stride: int | None = None) -> Segmenter:
        """Build the trained network at an output stride; None means that of its training."""
        arguments = self.experiment.arguments_at(output_stride)
        architecture = self.experiment.architecture
        model = build_model(architecture, arguments, num_classes=len(self.classes))
        model.load_state_dict(self.weights)
        return model


def open_checkpoint(path: Path, expected: Provenance) -> Checkpoint:
    """Read a checkpoint whose provenance must be ``expected``.

    Raises:
        CheckpointError: the file is missing or damaged, or its provenance is not ``expected``.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: run `dvc repro`")
    remedy = f"run `dvc repro --single-item --force train@{path.parent.name}-{path.stem}`"
    state = _load(path, remedy)
    for key, digest in expected.model_dump().items():
        if state["provenance"].get(key) != digest:
            what = key.removesuffix("_sha256")
            raise CheckpointError(f"{path} was trained with other {what} than now: {remedy}")
    return _make(state)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, whatever it was made from.

    Raises:
        CheckpointError: the file is missing or damaged, or another version of the code made it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: give the path of a checkpoint")
    state = _load(path, "give a checkpoint that the stage `train` has made")
    try:
        return _make(state)
    except ValidationError:
        raise CheckpointError(
            f"{path} is of another version of deeplab-bench: use that version, or train it again"
        ) from None


def _load(path: Path, remedy: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if {"model", "classes", "history", "experiment", "provenance"} <= state.keys():
            return state
    except (AttributeError, EOFError, OSError, RuntimeError, UnpicklingError):
        pass
    raise CheckpointError(f"{path} is damaged or no checkpoint of a run: {remedy}")


def _make(state: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        state["model"],
        state["classes"],
        state["history"],
        Experiment.model_validate_json(json.dumps(state["experiment"])),
        Provenance.model_validate(state["provenance"]),
    )
