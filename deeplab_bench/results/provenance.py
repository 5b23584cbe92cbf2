"""Provenance of a result: digests of the settings, data, weights and code that it was made from."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from deeplab_bench.data.packed import compute_data_sha256
from deeplab_bench.models import get_module_name
from deeplab_bench.results.code_digest import compute_code_sha256
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.training.pretrained import compute_weights_sha256


class Provenance(BaseModel):
    """The digests of all that a run was made from; ``code_sha256`` is by stage."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    settings_sha256: str
    data_sha256: str
    weights_sha256: str | None
    code_sha256: dict[str, str]

    def after(self, stage: str, architecture: str) -> "Provenance":
        """Add the code of a later stage that works on the same run."""
        code = self.code_sha256 | {stage: compute_code_sha256(stage, get_module_name(architecture))}
        return self.model_copy(update={"code_sha256": code})


def derive_provenance(experiment: Experiment, seed: int, data_folder: Path) -> Provenance:
    """Compute the provenance that a checkpoint made now would have."""
    backbone = experiment.arguments.get("backbone", "")
    module = get_module_name(experiment.architecture)
    return Provenance(
        settings_sha256=compute_settings_sha256(experiment, seed),
        data_sha256=compute_data_sha256(data_folder),
        weights_sha256=compute_weights_sha256(experiment.weights, backbone),
        code_sha256={"train": compute_code_sha256("train", module)},
    )


def compute_settings_sha256(experiment: Experiment, seed: int) -> str:
    """Compute a digest of every setting of a run."""
    settings = experiment.model_dump(mode="json") | {"seed": seed}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
