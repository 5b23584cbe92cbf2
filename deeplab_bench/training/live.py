"""Curves of a training while it runs, for DVCLive and TensorBoard where they are installed.

Nothing of this changes the training: the network is validated on a copy of it.
"""

import copy
import logging
import os
import shutil
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from deeplab_bench.data.packed import Split, load_split, pick_evenly
from deeplab_bench.data.pixels import VOID, DataError
from deeplab_bench.results.files import ProfileFiles, get_live_folder
from deeplab_bench.training.trainer import Trainer, compute_lr_factor

FIRST_SECONDS = 10.0  # shorter trainings leave no curves: opening their files takes seconds
EVERY_SECONDS = 5.0
VALIDATION_SHARE = 0.05  # of the time, at most
VALIDATION_IMAGES = 8
SWITCH = "DEEPLAB_BENCH_LIVE"  # 0 turns the curves off


class Live:
    """Logs a phase of a training: losses, mIoU, learning rate, images per second."""

    def __init__(self, checkpoint: Path, phase: int, trainer: Trainer) -> None:
        self.checkpoint, self.folder = checkpoint, get_live_folder(checkpoint, phase)
        self.iteration, self.seconds = trainer.iteration, trainer.seconds  # of the last entry
        self.due = self.validation_due = time.monotonic() + FIRST_SECONDS
        self.split: Split | None = None
        self.writers: list[Writer] | None = None  # None before the first entry
        if trainer.iteration == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __call__(self, trainer: Trainer) -> None:
        """Log the steps since the last entry, if that is long enough ago."""
        is_last = trainer.iteration == trainer.training.iterations
        if time.monotonic() < self.due and not (is_last and self.writers):
            return
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
            self.split = find_validation_split(self.checkpoint)
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
        started = time.monotonic()
        if self.split is not None and started >= self.validation_due:
            values |= validate(trainer, self.split)
            ended = time.monotonic()
            self.validation_due = ended + (ended - started) / VALIDATION_SHARE
        for writer in self.writers:
            writer.write(trainer.iteration, values)


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


def find_validation_split(checkpoint: Path) -> Split | None:
    """Find the validation split of a run; a pretraining has none."""
    files = ProfileFiles(checkpoint.parent.name)
    try:
        return load_split(files.data, "val") if "-" in checkpoint.stem else None
    except DataError:
        return None


@torch.inference_mode()
def validate(trainer: Trainer, split: Split) -> dict[str, float]:
    """Compute the loss per pixel and the mIoU of some fixed images, at their own sizes."""
    # Imported only here: it is no part of the training.
    from deeplab_bench.evaluation.measures.confusion import confusion_matrix, miou

    model = copy.deepcopy(trainer.model).eval()
    classes = len(split.classes)
    counts, loss, pixels = np.zeros((classes, classes), dtype=np.int64), 0.0, 0
    for index in pick_evenly(VALIDATION_IMAGES, len(split)):
        image, label = split.image(index), split.label(index)
        batch = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).to(trainer.device)
        truth = torch.from_numpy(label[None].astype(np.int64)).to(trainer.device)
        logits = model(model.colours.normalise(batch))
        # Its sum has no deterministic algorithm on a GPU; that of its values has.
        losses = F.cross_entropy(logits, truth, ignore_index=VOID, reduction="none")
        loss += float(losses.sum())
        pixels += int((label != VOID).sum())
        prediction = logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
        counts += confusion_matrix(label, prediction, classes)
    return {"val/loss": loss / max(1, pixels), "val/miou": miou(counts)}
