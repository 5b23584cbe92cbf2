"""Validation of a network while it trains: loss and mIoU at fixed iterations, on fixed images.

Nothing of this changes the training: a copy of the network is validated. The curve is a result, and
has the same bytes on every run, interrupted or not.
"""

import copy
import logging
import math
from collections.abc import Iterable

import numpy as np
import torch
from torch.nn import functional as F

from deeplab_bench.data.packed import MANIFEST, Split, load_split, pick_evenly, read_manifest
from deeplab_bench.data.pixels import VOID
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.results.files import ProfileFiles, RunFiles
from deeplab_bench.results.records import CurveRecord, write_record
from deeplab_bench.training.snapshots import Point, Points, Snapshots
from deeplab_bench.training.trainer import LOOK_EVERY, Trainer

POINTS = 8  # of each phase
IMAGES = 40
SPLIT = "val"


class Validation:
    """Validates the network of one phase, and writes the curve of all phases so far."""

    def __init__(self, run: RunFiles, split: Split, snapshots: Snapshots, phase: int) -> None:
        self.run, self.split, self.snapshots = run, split, snapshots
        self.points = snapshots.points.setdefault(phase, {})

    def __call__(self, trainer: Trainer) -> None:
        """Add a point if one is due; if an earlier one is missing, there is no curve."""
        due = list_due(trainer.training.iterations)
        before = [iteration for iteration in due if iteration < trainer.iteration]
        if trainer.iteration not in due:
            return
        if list(self.points) != before:
            self.points.clear()
            return
        try:
            self.points[trainer.iteration] = validate(trainer.model, self.split, trainer.device)
        except Exception as error:  # a curve is not worth a training
            logging.getLogger(__name__).warning("no validation curve: %s", error)
            self.points.clear()

    def write(self) -> None:
        """Write the curve; it is empty if a point is missing."""
        joined = join_phases(self.snapshots.points.values())
        content = {
            "profile": self.run.profile,
            "model": self.run.model,
            "seed": self.run.seed,
            "provenance": self.snapshots.provenance,
            "images": min(IMAGES, len(self.split)),
            "iteration": list(joined),
            "loss": [loss for loss, _ in joined.values()],
            "miou": [miou for _, miou in joined.values()],
        }
        write_record(self.run.curve, CurveRecord, content)


def begin_validation(snapshots: Snapshots, phase: int) -> Validation | None:
    """Begin to validate a phase of a run; None if it is no run of a profile with packed images.

    Raises:
        DataError: the packed images are incomplete.
    """
    run = RunFiles.find(snapshots.checkpoint)
    if run is None:
        return None
    folder = ProfileFiles(run.profile).data
    if not (folder / MANIFEST).is_file() or SPLIT not in read_manifest(folder)["splits"]:
        return None
    return Validation(run, load_split(folder, SPLIT), snapshots, phase)


def list_due(iterations: int) -> list[int]:
    """List the iterations after which a phase is validated, evenly spaced, the last one included.

    On a GPU, training stops every ``LOOK_EVERY`` iterations alone.
    """
    evenly = (part * iterations // POINTS for part in range(1, POINTS))
    return sorted({i // LOOK_EVERY * LOOK_EVERY for i in evenly} - {0} | {iterations})


def join_phases(phases: Iterable[Points]) -> Points:
    """Join the points of all phases, whose iterations continue the count; none if a phase has none.

    The last point of a phase is at its end.
    """
    joined: Points = {}
    done = 0
    for points in phases:
        if not points:
            return {}
        joined |= {done + iteration: point for iteration, point in points.items()}
        done += max(points)
    return joined


@torch.no_grad()  # a tensor of inference mode, kept by the network, would stop its training
def validate(model: Segmenter, split: Split, device: torch.device) -> Point:
    """Compute the loss per pixel and the mIoU on ``IMAGES`` images, at their own sizes."""
    # Imported only here: it is no part of the training.
    from deeplab_bench.evaluation.measures.confusion import confusion_matrix, miou
    from deeplab_bench.evaluation.measures.measure import round_fraction
    from deeplab_bench.evaluation.predict import BATCH_PIXELS, batch_by_size, pick_most_probable

    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):  # a network may draw numbers here, too
        network = copy.deepcopy(model).eval()
        classes = len(split.classes)
        counts, loss, pixels = np.zeros((classes, classes), dtype=np.int64), 0.0, 0
        chosen = pick_evenly(IMAGES, len(split))
        for batch in batch_by_size(split.sizes, chosen, BATCH_PIXELS[device.type]):
            images = torch.from_numpy(np.stack([split.image(index) for index in batch]))
            labels = np.stack([split.label(index) for index in batch])
            truth = torch.from_numpy(labels).to(device).long()
            logits = network(network.colours.normalise(images.permute(0, 3, 1, 2).to(device)))
            # Its sum has no deterministic algorithm on a GPU; that of its values has.
            losses = F.cross_entropy(logits, truth, ignore_index=VOID, reduction="none")
            loss += losses.sum(dtype=torch.float64).item()
            pixels += int((labels != VOID).sum())
            counts += confusion_matrix(labels, pick_most_probable(logits), classes)
    mean = loss / pixels if pixels else math.nan
    return (round(mean, 5) if math.isfinite(mean) else None), round_fraction(miou(counts))
