"""Training of one model to a checkpoint. Interrupted runs resume; a seed gives equal bytes.

``torchrun`` starts several processes for one run, one on each GPU. They divide every batch between
them. Batch normalisation, loss and schedule are those of the whole batch.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deeplab_bench.data.batches import iterate_batches
from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.models import build_model
from deeplab_bench.models.backbones import start_as_identities
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.models.weights import initialise_backbone
from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.device import count_default_workers, make_deterministic, pick_device
from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.runtime.source import describe_source
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.training.fingerprints import join_phases, select_losses
from deeplab_bench.training.loss import compute_class_weights
from deeplab_bench.training.pretrained import read_weights
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.trainer import Trainer, TrainingError
from deeplab_bench.training.watch import watch_training
from deeplab_bench.writing import write_json, write_tensors


def train(
    experiment: Experiment,
    seed: int,
    data_folder: Path,
    checkpoint: Path,
    provenance: Mapping[str, Any],
    workers: int | None = None,
) -> dict[str, Any]:
    """Train a model and write its ``checkpoint``. The file with its timing is beside it.

    An interrupted run continues from its last snapshot, and its checkpoint has the same bytes as
    without the interruption. ``provenance`` is stored with the weights. Snapshots with another
    provenance are not used.

    Returns:
        The fingerprints, as ``FingerprintRecord`` has them; those of the weights only in process 0.

    Raises:
        DataError: the data have not been prepared.
        LockError: another process trains the same run.
        TrainingError: the loss is not finite.
    """
    splits = [load_split(data_folder, phase.train_split) for phase in experiment.phases]
    return train_on(splits, experiment, seed, checkpoint, provenance, workers)


def train_on(
    splits: Sequence[Split],
    experiment: Experiment,
    seed: int,
    checkpoint: Path,
    provenance: Mapping[str, Any],
    workers: int | None = None,
) -> dict[str, Any]:
    """Train a model as ``train`` does, on one split for each phase."""
    classes = splits[0].classes
    device = pick_device()
    source = describe_source()
    make_deterministic(seed)
    is_first = distributed.rank() == 0
    history: dict[str, Any] = {"iteration": [], "loss": []}
    traces = []
    seconds = 0.0
    snapshots = Snapshots(checkpoint, provenance)
    with snapshots.lock() if is_first else nullcontext():
        model = build_initial_model(experiment, classes)
        if not is_first:
            torch.manual_seed(derive_seed(seed))
        for number, (phase, split) in enumerate(
            zip(experiment.phases, splits, strict=True), start=1
        ):
            if number > 1:
                model = rebuild(model, experiment.architecture, phase.arguments, classes)
            model = model.to(device).to(memory_format=torch.channels_last)
            weights = compute_class_weights(split, phase.training.class_balancing)
            trainer = Trainer(model, phase.training, device, weights)
            state = snapshots.load(number, device)
            if state is not None:
                trainer.resume(state)
            batches = iterate_batches(
                split,
                phase.training,
                seed,
                device=device,
                first_iteration=trainer.iteration,
                workers=count_default_workers(device) if workers is None else workers,
                rank=distributed.rank(),
                world_size=distributed.world_size(),
            )
            title = f"training {experiment.model} ({experiment.profile}, seed {seed})"
            with watch_training(trainer, snapshots, number, title) as watch:
                trainer.run(batches, watch)
            if phase is not experiment.phases[-1]:
                watch.save(trainer)
            append_history(history, trainer.history())
            traces.append((select_losses(trainer.losses.cpu()), trainer.fingerprints))
            seconds += trainer.seconds
        if is_first:
            content = {
                "model": model.state_dict(),
                "provenance": dict(provenance),
                "history": history,
                "classes": classes,
                "experiment": experiment.model_dump(mode="json"),
            }
            write_tensors(checkpoint, content)
            timing = {
                "training_seconds": round(seconds, 2),
                "environment": describe_environment(device)
                | {"world_size": distributed.world_size()},
                "sources": {"train": source},
            }
            write_json(get_timing_file(checkpoint), timing)
            snapshots.remove()
    return join_phases(model, traces)


def derive_seed(seed: int) -> int:
    """Derive a different seed for each process, for random operations such as dropout."""
    return int(np.random.SeedSequence((seed, distributed.rank())).generate_state(1)[0])


def build_initial_model(experiment: Experiment, classes: Sequence[str]) -> Segmenter:
    """Build the network at the start of training, with pretrained weights if the settings ask."""
    model = build_model(experiment.architecture, experiment.arguments, num_classes=len(classes))
    weights = experiment.weights
    if weights != "none":
        try:
            initialise_backbone(model, read_weights(weights, experiment.arguments["backbone"]))
        except ValueError as error:
            raise TrainingError(
                f"training.weights {weights} of models.{experiment.model}: {error}"
            ) from None
    if experiment.training.zero_init_residual:
        start_as_identities(model.backbone, copies_alone=weights != "none")
    return model


def rebuild(
    model: Segmenter, architecture: str, arguments: Mapping[str, Any], classes: Sequence[str]
) -> Segmenter:
    """Copy the weights to a network with other arguments, for example another output stride."""
    other = build_model(architecture, arguments, num_classes=len(classes))
    other.load_state_dict(model.state_dict())
    return other


def append_history(history: dict[str, Any], further: dict[str, Any]) -> None:
    """Append the history of the next phase. Its iterations continue the count."""
    history.setdefault("start_loss", further["start_loss"])
    done = history["iteration"][-1] if history["iteration"] else 0
    history["iteration"] += [done + iteration for iteration in further["iteration"]]
    history["loss"] += further["loss"]


def get_timing_file(checkpoint: Path) -> Path:
    return checkpoint.with_suffix(".timing.json")


def read_timing(checkpoint: Path) -> dict[str, Any]:
    """Read the duration of a checkpoint's training, and the machine.

    Raises:
        TrainingError: the file beside the checkpoint is missing.
    """
    path = get_timing_file(checkpoint)
    if not path.is_file():
        raise TrainingError(f"{path} is missing: run `dvc repro`")
    return json.loads(path.read_text(encoding="utf-8"))
