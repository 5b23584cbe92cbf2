"""How long a training step takes: measured on made-up batches, stored by the device's name."""

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

from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model
from deeplab_bench.results.provenance import environment
from deeplab_bench.runtime.device import make_deterministic
from deeplab_bench.settings.schema import Phase
from deeplab_bench.settings.training import Training
from deeplab_bench.timing.rounds import Work, peak_memory_mib, reset_peak_memory, timed
from deeplab_bench.training.train import Trainer
from deeplab_bench.writing import write_json

WARM_UP_STEPS = 2
TIMED_STEPS = 5
BATCHES = 3
STEP_SECONDS = 30.0  # a model gets no further step after these
# A CPU's time is proportional to the batch, once that is this large, and its memory is short.
CPU_PIXELS = 2**20
# The settings of training that a step takes no longer for.
NO_MATTER = {
    "iterations",
    "base_lr",
    "lr_policy",
    "poly_power",
    "step_iterations",
    "step_factor",
    "head_lr_multiplier",
    "momentum",
    "weight_decay",
    "batch_norm_momentum",
    "class_balancing",
    "weights",
    "random_scale",
    "horizontal_flip",
}


class StepsError(UserError):
    """There are no stored figures of a device, or they cannot be read."""


class Step(BaseModel):
    """``seconds`` of a whole batch, None if it does not fit into the device's memory.

    ``batch_size`` is that of the batch measured; the seconds of a smaller one are scaled up.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seconds: float | None
    batch_size: int
    peak_memory_mib: float | None


class Steps(BaseModel):
    """A device's steps by the digest of a model's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    environment: dict[str, Any]
    steps: dict[str, Step]


@dataclass(frozen=True)
class Case:
    """A phase of training to be timed, as a network of so many classes."""

    architecture: str
    phase: Phase
    num_classes: int

    @property
    def key(self) -> str:
        """A digest of the settings that a step's time hangs on."""
        training = self.phase.training.model_dump(mode="json", exclude=NO_MATTER)
        settings = [self.architecture, self.phase.arguments, training, self.num_classes]
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def measure_all(
    cases: Iterable[Case], device: torch.device, limit_seconds: float
) -> dict[str, Step]:
    """Steps by the key of each case, those of the same key measured once.

    None is begun after ``limit_seconds``; the first always is.
    """
    pending = {case.key: case for case in cases}
    found: dict[str, Step] = {}
    started = time.monotonic()
    for key, case in tqdm(pending.items(), desc="timing steps", unit="network"):
        if not found or time.monotonic() - started < limit_seconds:
            found[key] = measure(case, device)
    return found


def measure(case: Case, device: torch.device) -> Step:
    """The median of the steps after a warm-up; data loading has no part in it."""
    training = case.phase.training
    batch_size = measured_batch(training, device)
    reset_peak_memory(device)
    try:
        seconds = time_steps(case, batch_size, device)
    except torch.cuda.OutOfMemoryError:
        return Step(seconds=None, batch_size=batch_size, peak_memory_mib=None)
    timed_steps = seconds[WARM_UP_STEPS:] or seconds[-1:]
    memory = round(peak_memory_mib(device), 1) if device.type == "cuda" else None
    return Step(
        seconds=round(statistics.median(timed_steps) * training.batch_size / batch_size, 4),
        batch_size=batch_size,
        peak_memory_mib=memory,
    )


def time_steps(case: Case, batch_size: int, device: torch.device) -> list[float]:
    """Seconds of every step, the warm-up's first."""
    steps = WARM_UP_STEPS + TIMED_STEPS
    step = training_step(case, batch_size, device, steps)
    seconds: list[float] = []
    while len(seconds) < steps and sum(seconds) < STEP_SECONDS:
        seconds.append(timed(step, device))
    return seconds


def training_step(case: Case, batch_size: int, device: torch.device, steps: int) -> Work:
    """A step of the training itself, to be taken ``steps`` times, on made-up batches in turn."""
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


def measured_batch(training: Training, device: torch.device) -> int:
    """The whole batch on a GPU, on a CPU at most as many crops as have ``CPU_PIXELS``."""
    if device.type == "cuda":
        return training.batch_size
    height, width = training.crop_size
    return min(training.batch_size, max(2, CPU_PIXELS // (height * width)))


def save(path: Path, steps: dict[str, Step], device: torch.device) -> None:
    """Add steps to those that are stored there."""
    stored = load(path).steps if path.is_file() else {}
    content = {key: step.model_dump() for key, step in sorted((stored | steps).items())}
    write_json(path, {"environment": environment(device), "steps": content})


def load(path: Path) -> Steps:
    """
    Raises:
        StepsError: the file is missing or malformed.
    """
    remedy = f"run `python -m deeplab_bench.plan --save {path.stem}` on that device"
    try:
        return Steps.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.json"))) or "none"
        raise StepsError(f"{path} is missing, there are {others}: {remedy}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StepsError(f"{path}: {where}: {first['msg']}: remove it and {remedy}") from None
