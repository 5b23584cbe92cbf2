"""Costs of a profile: downloads, disk, floating-point operations and hours of training."""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.packed import MANIFEST, read_manifest
from deeplab_bench.models import build_model, check_arguments
from deeplab_bench.models.weights import get_imagenet_weights
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.params import Params
from deeplab_bench.timing.speed import count_flops
from deeplab_bench.timing.steps import Case, Step
from deeplab_bench.training.pretrained import find_weights_archive, needs_download

BYTES_PER_PIXEL = 4  # RGB and the label
UNKNOWN = Step(seconds=None, batch_size=0, peak_memory_mib=None)


def list_possible_models(params: Params, profile: str) -> list[str]:
    """List the models whose networks can be built under a profile."""
    return [model for model in params.networks if is_possible(params.experiment(profile, model))]


def is_possible(experiment: Experiment) -> bool:
    try:
        for phase in experiment.phases:
            check_arguments(experiment.architecture, phase.arguments)
    except ValueError:
        return False
    return True


def list_cases(params: Params, profile: str, model: str) -> list[Case]:
    """List the phases of a model's training."""
    experiment = params.experiment(profile, model)
    classes = len(params.profile[profile].data.class_names())
    return [Case(experiment.architecture, phase, classes) for phase in experiment.phases]


def compute_costs(
    params: Params,
    profile: str,
    models: Sequence[str],
    found: Mapping[str, Step],
    train_due: Sequence[bool],
) -> pd.DataFrame:
    """Compute the costs of training, a row for each phase of a model.

    ``found`` are steps by the key of their case; ``train_due`` tells for every seed of every model
    whether it is to be trained. Hours are of all seeds, ``hours_due`` of those to be trained, and
    NaN if unknown. ``pflop`` is 10^15 floating-point operations of all seeds, on any device.
    """
    seeds = len(params.run.seeds)
    rows = []
    for index, model in enumerate(tqdm(models, desc="counting operations", unit="model")):
        due = sum(train_due[index * seeds : (index + 1) * seeds])
        for case in list_cases(params, profile, model):
            step = found.get(case.key, UNKNOWN)
            iterations = case.phase.training.iterations
            hours = (step.seconds or math.nan) * iterations / 3600
            rows.append(
                {
                    "model": model,
                    "step_s": step.seconds,
                    "iterations": iterations,
                    "pflop": seeds * count_training_flops(case) / 1e15,
                    "hours_per_seed": hours,
                    "hours": hours * seeds,
                    "hours_due": hours * due,
                    "memory_mib": step.peak_memory_mib,
                    "fits": step is UNKNOWN or step.seconds is not None,
                }
            )
    return pd.DataFrame(rows).astype({"step_s": float, "memory_mib": float})


def count_training_flops(case: Case) -> int:
    """Count the operations of a phase from one seed.

    The forward pass is counted on tensors without data; the backward pass takes twice as many.
    """
    training = case.phase.training
    with torch.device("meta"):
        model = build_model(case.architecture, case.phase.arguments, num_classes=case.num_classes)
        images = torch.empty(training.batch_size, 3, *training.crop_size)
        forward = count_flops(model.training_logits, images)
    return 3 * forward * training.iterations


def list_downloads(params: Params, profile: str, models: Sequence[str]) -> Iterator[str]:
    """Yield a line for each archive of the data and each file of ImageNet weights."""
    sizes = {a.filename: a.size_bytes for a in params.profile[profile].data.archives()}
    for model in models:
        experiment = params.experiment(profile, model)
        backbone = experiment.arguments.get("backbone", "")
        if needs_download(experiment.training.weights, backbone):
            mebibytes = get_imagenet_weights(backbone).meta["_file_size"]
            sizes[find_weights_archive(backbone).filename] = round(mebibytes * 2**20)
    for filename, size in sizes.items():
        stated = "of unstated size" if size is None else format_bytes(size)
        there = (DOWNLOADS / filename).is_file()
        yield f"Download: {filename}, {stated}{', there already' if there else ''}"


def describe_disk(params: Params, profile: str, models: Sequence[str]) -> str:
    """Say how much disk is needed and free.

    Archives count twice: during the conversion, the archive and its unpacked files both exist.
    """
    data = params.profile[profile].data
    checkpoints = sum(count_checkpoint_bytes(params, profile, model) for model in models)
    parts = {
        "archives and what is unpacked from them": 2
        * sum(archive.size_bytes or 0 for archive in data.archives()),
        "packed images": count_packed_bytes(data, ProfileFiles(profile).data),
        "checkpoints": len(params.run.seeds) * checkpoints,
    }
    needed = ", ".join(f"{format_bytes(size)} of {what}" for what, size in parts.items() if size)
    return f"Disk: {needed}; {format_bytes(shutil.disk_usage(Path()).free)} are free here"


def count_packed_bytes(data: DataSet, folder: Path) -> int:
    """Count the bytes of the packed images and labels, or estimate them before they are packed."""
    if (folder / MANIFEST).is_file():
        splits = read_manifest(folder)["splits"].values()
        return BYTES_PER_PIXEL * sum(h * w for split in splits for h, w in split["sizes"])
    return BYTES_PER_PIXEL * data.estimate_pixels()


def count_checkpoint_bytes(params: Params, profile: str, model: str) -> int:
    experiment = params.experiment(profile, model)
    classes = len(params.profile[profile].data.class_names())
    with torch.device("meta"):
        network = build_model(experiment.architecture, experiment.arguments, num_classes=classes)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def format_bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
