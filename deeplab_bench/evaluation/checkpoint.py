"""Checkpoints: reading, verification, and the network built from them."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.settings.experiment import Experiment


class CheckpointError(UserError):
    """A checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network's ``weights``, and the loss over its training."""

    weights: dict[str, torch.Tensor]
    classes: list[str]
    history: dict[str, Any]
    provenance: Provenance

    def build_model(self, experiment: Experiment, output_stride: int | None = None) -> Segmenter:
        """Build the trained network at an output stride; None means that of its training."""
        arguments = experiment.arguments_at(output_stride)
        model = build_model(experiment.architecture, arguments, num_classes=len(self.classes))
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
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = state["provenance"]
    except (EOFError, KeyError, OSError, RuntimeError, UnpicklingError):
        raise CheckpointError(f"{path} is damaged or no checkpoint of a run: {remedy}") from None
    for key, digest in expected.model_dump().items():
        if found.get(key) != digest:
            what = key.removesuffix("_sha256")
            raise CheckpointError(f"{path} was trained with other {what} than now: {remedy}")
    return Checkpoint(state["model"], state["classes"], state["history"], expected)
