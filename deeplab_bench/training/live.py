"""Curves of a training while it runs, for DVCLive and TensorBoard where they are installed."""

import logging
import os
import shutil
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from deeplab_bench.results.files import get_live_folder
from deeplab_bench.training.snapshots import Point, Snapshots
from deeplab_bench.training.trainer import Trainer, compute_lr_factor

FIRST_SECONDS = 10.0  # shorter trainings leave no curves: opening their files takes seconds
EVERY_SECONDS = 5.0
SWITCH = "DEEPLAB_BENCH_LIVE"  # 0 turns the curves off


class Live:
    """Logs a phase of a training: loss, learning rate, images per second, points of validation."""

    def __init__(self, snapshots: Snapshots, phase: int, trainer: Trainer) -> None:
        self.folder = get_live_folder(snapshots.checkpoint, phase)
        self.points = snapshots.points.get(phase, {})
        self.iteration, self.seconds = trainer.iteration, trainer.seconds  # of the last entry
        self.due = time.monotonic() + FIRST_SECONDS
        self.writers: list[Writer] | None = None  # None before the first entry
        if trainer.iteration == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, trainer: Trainer, paused: float) -> None:
        """Log the steps since the last entry, if that is long enough ago.

        ``paused`` are the seconds since the last step, which were for something else.
        """
        is_last = trainer.iteration == trainer.training.iterations
        if time.monotonic() >= self.due or (is_last and self.writers):
            self.add_entry(trainer)
        self.seconds += paused

    def add_entry(self, trainer: Trainer) -> None:
        started = time.monotonic()
        try:
            self.log(trainer)
        except Exception as error:  # a curve is not worth a training
            logging.getLogger(__name__).warning("no more live curves: %s", error)
            self.writers = []
        ended = time.monotonic()
        self.iteration, self.seconds = trainer.iteration, trainer.seconds + ended - started
        self.due = ended + EVERY_SECONDS

    def log(self, trainer: Trainer) -> None:
        if self.writers is None:
            self.writers = open_writers(self.folder, self.iteration)
        if not self.writers:
            return
        losses = trainer.losses[self.iteration : trainer.iteration]
        crops = len(losses) * trainer.training.batch_size
        values = {
            "train/loss": float(losses.mean()),
            "train/learning_rate": trainer.training.base_lr
            * compute_lr_factor(trainer.training, trainer.iteration - 1),
            "train/images_per_second": crops / (trainer.seconds - self.seconds),
        }
        for writer in self.writers:
            for iteration, point in self.points.items():
                if iteration > self.iteration:
                    writer.write(iteration, name_defined(point))
            writer.write(trainer.iteration, values)


def name_defined(point: Point) -> dict[str, float]:
    """Name the values of a point that are defined."""
    named = zip(("val/loss", "val/miou"), point, strict=True)
    return {name: value for name, value in named if value is not None}


class Writer(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add an entry to every curve."""


class DVCLiveWriter:
    """Writes a table for each curve, ``plots/metrics/<name>.tsv``, and ``metrics.json``."""

    def __init__(self, folder: Path, last: int) -> None:
        from dvclive.live import Live as DVCLive

        for path in folder.glob("plots/metrics/**/*.tsv"):
            cut_curve(path, last)
        self.live = DVCLive(
            dir=str(folder), resume=True, save_dvc_exp=False, dvcyaml=None, report=None
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.live.step = step
        for name, value in values.items():
            self.live.log_metric(name, value)
        self.live.make_summary()


class TensorBoardWriter:
    def __init__(self, folder: Path, last: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=last + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()


def open_writers(folder: Path, last: int) -> list[Writer]:
    """Open the files of all installed libraries.

    Entries after the iteration ``last`` are removed: they are of steps that a killed process has
    done since its last snapshot, and that are done again.
    """
    if os.environ.get(SWITCH) == "0":
        return []
    writers: list[Writer] = []
    if find_spec("dvclive"):
        writers.append(DVCLiveWriter(folder, last))
    if find_spec("tensorboard"):
        writers.append(TensorBoardWriter(folder, last))
    return writers


def cut_curve(path: Path, last: int) -> None:
    """Remove the rows of a curve after an iteration; they begin with it, after one of names."""
    head, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if int(row.partition("\t")[0]) <= last]
    path.write_text("".join([head, *kept]), encoding="utf-8")
