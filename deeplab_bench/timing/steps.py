"""Times of training steps, measured and stored for each device, for planning.

The batches are random. Loading data is not part of the time.
"""

import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from deeplab_bench.errors import UserError, describe_first_error
from deeplab_bench.models import build_model
from deeplab_bench.runtime.device import make_deterministic
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.settings.experiment import Phase
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.machine import read_peak_memory_mib, reset_peak_memory
from deeplab_bench.timing.rounds import Work, time_once
from deeplab_bench.training.trainer import Trainer
from deeplab_bench.writing import write_json

WARM_UP_STEPS = 2
TIMED_STEPS = 5
BATCHES = 3
STEP_SECONDS = 30.0  # no further step of a model begins after this time
# The pixels of the largest batch that is timed on a CPU. Larger ones take proportionally longer.
CPU_PIXELS = 2**20
# Settings of training that do not change the time of a step.
WITHOUT_EFFECT = {
    "iterations",
    "base_lr",
    "lr_policy",
    "poly_power",
    "step_iterations",
    "step_factor",
    "warmup_iterations",
    "head_lr_multiplier",
    "momentum",
    "weight_decay",
    "batch_norm_momentum",
    "class_balancing",
    "weights",
    "zero_init_residual",
    "random_scale",
    "horizontal_flip",
}


class StepsError(UserError):
    """The stored times of a device are missing or cannot be read."""


class Step(BaseModel):
    """The time and memory of one training step.

    ``seconds`` is for a whole batch; None if it does not fit in the memory of the device.
    ``batch_size`` is the size that was timed. If it is smaller than the whole batch, ``seconds`` is
    scaled up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seconds: float | None
    batch_size: int
    peak_memory_mib: float | None


class StoredSteps(BaseModel):
    """The steps of one device, by ``Case.key``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    environment: dict[str, Any]
    steps: dict[str, Step]


@dataclass(frozen=True)
class Case:
    """One phase of training whose steps are timed, with the number of classes."""

    architecture: str
    phase: Phase
    num_classes: int

    @property
    def key(self) -> str:
        """A digest of the settings that change the time of a step."""
        training = self.phase.training.model_dump(mode="json", exclude=WITHOUT_EFFECT)
        settings = [self.architecture, self.phase.arguments, training, self.num_classes]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def measure_steps(
    cases: Iterable[Case], device: torch.device, limit_seconds: float
) -> dict[str, Step]:
    """Measure a step of each case. Returns them by key; equal keys are measured once.

    After ``limit_seconds`` no further case begins, but the first is always measured.
    """
    pending = {case.key: case for case in cases}
    found: dict[str, Step] = {}
    started = time.monotonic()
    for key, case in tqdm(pending.items(), desc="timing steps", unit="network"):
        if not found or time.monotonic() - started < limit_seconds:
            found[key] = measure_step(case, device)
    return found


def measure_step(case: Case, device: torch.device) -> Step:
    """Measure the median time of the steps after a warm-up."""
    training = case.phase.training
    batch_size = choose_batch_size(training, device)
    reset_peak_memory(device)
    try:
        seconds = time_steps(case, batch_size, device)
    except torch.cuda.OutOfMemoryError:
        return Step(seconds=None, batch_size=batch_size, peak_memory_mib=None)
    timed_steps = seconds[WARM_UP_STEPS:] or seconds[-1:]
    memory = round(read_peak_memory_mib(device), 1) if device.type == "cuda" else None
    return Step(
        seconds=round(statistics.median(timed_steps) * training.batch_size / batch_size, 4),
        batch_size=batch_size,
        peak_memory_mib=memory,
    )


def time_steps(case: Case, batch_size: int, device: torch.device) -> list[float]:
    """Return the seconds of every step. The steps of the warm-up come first."""
    steps = WARM_UP_STEPS + TIMED_STEPS
    step = make_training_step(case, batch_size, device, steps)
    seconds: list[float] = []
    while len(seconds) < steps and sum(seconds) < STEP_SECONDS:
        seconds.append(time_once(step, device))
    return seconds


def make_training_step(case: Case, batch_size: int, device: torch.device, steps: int) -> Work:
    """Return a step of ``Trainer`` on random batches, to be called at most ``steps`` times."""
    make_deterministic(0)
    model = build_model(case.architecture, case.phase.arguments, num_classes=case.num_classes)
    model = model.to(device).to(memory_format=torch.channels_last)
    training = case.phase.training.model_copy(update={"iterations": steps})
    trainer = Trainer(model, training, device)
    size = training.crop_size
    batches = itertools.cycle(
        [
            (
                torch.randint(256, (batch_size, 3, *size), dtype=torch.uint8),
                torch.randint(case.num_classes, (batch_size, *size), dtype=torch.uint8),
            )
            for _ in range(BATCHES)
        ]
    )
    return lambda: trainer.step(*next(batches))


def choose_batch_size(training: Training, device: torch.device) -> int:
    """Return the batch size to time: the whole batch, but at most ``CPU_PIXELS`` on a CPU."""
    if device.type == "cuda":
        return training.batch_size
    height, width = training.crop_size
    return min(training.batch_size, max(2, CPU_PIXELS // (height * width)))


def save(path: Path, steps: dict[str, Step], device: torch.device) -> None:
    """Add steps to the file of a device."""
    stored = load(path).steps if path.is_file() else {}
    content = {key: step.model_dump() for key, step in sorted((stored | steps).items())}
    write_json(path, {"environment": describe_environment(device), "steps": content})


def load(path: Path) -> StoredSteps:
    """Read the stored steps of a device.

    Raises:
        StepsError: the file is missing or malformed.
    """
    remedy = f"run `deeplab-bench plan --save {path.stem}` on that device"
    try:
        return StoredSteps.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none"
        raise StepsError(f"{path} is missing (stored devices: {others}): {remedy}") from None
    except ValidationError as error:
        problem = describe_first_error(error)
        raise StepsError(f"{path}: {problem}: delete the file and {remedy}") from None
