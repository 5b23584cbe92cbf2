"""What a profile will cost: ``python -m deeplab_bench.plan [PROFILE ...]`` trains nothing.

The stages that are due, what they download, the disk they fill, and the hours of training, from
steps timed on this machine's device or from stored ones of another.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image
from tqdm import tqdm

from deeplab_bench import steps
from deeplab_bench.data.packed import MANIFEST, data_sha256, read_manifest
from deeplab_bench.data.preparation import archives_of, class_names
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model
from deeplab_bench.params import Data, FolderData, Params, ShapesData, load_params
from deeplab_bench.paths import (
    DOWNLOADS,
    RESULTS,
    checkpoint_file,
    data_folder,
    download_record,
    run_file,
    speed_file,
    steps_file,
)
from deeplab_bench.provenance import code_sha256, device_name, settings_sha256
from deeplab_bench.steps import Step
from deeplab_bench.training import pick_device

LIMIT_SECONDS = 600.0
# Published data sets: images of all splits, and about the pixels of one.
IMAGES = {"camvid": (468, 360 * 480), "voc2012": (10_582 + 1_449, 500 * 375)}
BYTES_PER_PIXEL = 4  # RGB and the label

Due = dict[str, list[bool]]


def plan(params: Params, profile: str, models: Sequence[str], found: dict[str, Step]) -> str:
    """The text of a profile; ``found`` are steps by ``steps.key_of``."""
    due = due_stages(params, profile, models)
    table = costs(params, profile, models, found, due["train"])
    blocks = [
        f"Plan of {profile}: {len(models)} models, {len(params.run.seeds)} seeds",
        stages_text(due),
        "\n".join([*download_lines(params.profile[profile].data), disk(params, profile, models)]),
        costs_text(table),
        *unknown_steps(table),
    ]
    return "\n\n".join(blocks) + "\n"


def due_stages(params: Params, profile: str, models: Sequence[str]) -> Due:
    """For every stage whether each of its runs is due: not made from what there is now."""
    runs = [(model, seed) for model in models for seed in params.run.seeds]
    timed = [(label, model) for label in params.run.hardware for model in models]
    code = {stage: code_sha256(f"deeplab_bench.{stage}") for stage in ("training", "evaluation")}
    speed_code = code_sha256("deeplab_bench.speed")
    trained, evaluated = [], []
    for model, seed in runs:
        checkpoint, run = checkpoint_of(profile, model, seed), read(run_file(profile, model, seed))
        now = provenance(params, profile, model, seed)
        trained.append(is_made_from(checkpoint, now | {"code_sha256": code["training"]}))
        evaluated.append(is_made_from(run, now | {"code_sha256": code["evaluation"]}))
    due = {
        "download": [not download_record(profile).is_file()],
        "prepare": [not (data_folder(profile) / MANIFEST).is_file()],
        "train": [not done for done in trained],
        "evaluate": [not (a and b) for a, b in zip(trained, evaluated, strict=True)],
        "speed": [read(speed_file(profile, *of)).get("code_sha256") != speed_code for of in timed],
    }
    reported = (RESULTS / profile / "README.md").is_file()
    return due | {"report": [not reported or any(map(any, due.values()))]}


def provenance(params: Params, profile: str, model: str, seed: int) -> dict[str, str | None]:
    """What a run is made from, but for the code; no data yet is None."""
    folder = data_folder(profile)
    return {
        "settings_sha256": settings_sha256(params.experiment(profile, model), seed),
        "data_sha256": data_sha256(folder) if (folder / MANIFEST).is_file() else None,
    }


def is_made_from(record: dict[str, Any], now: dict[str, str | None]) -> bool:
    made_from = record.get("provenance", {})
    return all(made_from.get(key, "") == digest for key, digest in now.items())


def checkpoint_of(profile: str, model: str, seed: int) -> dict[str, Any]:
    """Its tensors stay on the disk."""
    path = checkpoint_file(profile, model, seed)
    return torch.load(path, "cpu", weights_only=True, mmap=True) if path.is_file() else {}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def stages_text(due: Due) -> str:
    rows = [{"stage": name, "due": sum(runs), "of": len(runs)} for name, runs in due.items()]
    return as_text(pd.DataFrame(rows))


def download_lines(data: Data) -> Iterator[str]:
    """A line per archive."""
    for archive in archives_of(data):
        size = "of unstated size" if archive.size_bytes is None else in_bytes(archive.size_bytes)
        there = (DOWNLOADS / archive.filename).is_file()
        yield f"Download: {archive.filename}, {size}{', there already' if there else ''}"


def disk(params: Params, profile: str, models: Sequence[str]) -> str:
    """Archives count twice, as they lie unpacked beside themselves while they are converted."""
    data = params.profile[profile].data
    checkpoints = sum(checkpoint_bytes(params, profile, model) for model in models)
    parts = {
        "archives and what is unpacked from them": 2
        * sum(archive.size_bytes or 0 for archive in archives_of(data)),
        "packed images": packed_bytes(data, data_folder(profile)),
        "checkpoints": len(params.run.seeds) * checkpoints,
    }
    needed = ", ".join(f"{in_bytes(size)} of {what}" for what, size in parts.items() if size)
    return f"Disk: {needed}; {in_bytes(shutil.disk_usage(Path()).free)} are free here"


def packed_bytes(data: Data, folder: Path) -> int:
    """Of the packed images and labels: those there are, or about those there will be."""
    if (folder / MANIFEST).is_file():
        splits = read_manifest(folder)["splits"].values()
        return BYTES_PER_PIXEL * sum(h * w for split in splits for h, w in split["sizes"])
    match data:
        case ShapesData():
            count, pixels = data.train_images + data.val_images, data.image_size**2
        case FolderData():
            source = VocFolder(Path(data.root))
            names = [name for split in ("train", "val") for name in source.names(split)]
            with Image.open(source.image_path(names[0])) as image:
                count, pixels = len(names), image.width * image.height
        case _:
            count, pixels = IMAGES[data.dataset]
    return BYTES_PER_PIXEL * count * pixels


def checkpoint_bytes(params: Params, profile: str, model: str) -> int:
    experiment = params.experiment(profile, model)
    classes = number_of_classes(params.profile[profile].data)
    with torch.device("meta"):
        network = build_model(experiment.architecture, experiment.arguments, num_classes=classes)
    return sum(tensor.nbytes for tensor in network.state_dict().values())


def number_of_classes(data: Data) -> int:
    root = data.root if isinstance(data, FolderData) else ""
    return len(class_names(data, VocFolder(Path(root))))


def costs(
    params: Params,
    profile: str,
    models: Sequence[str],
    found: dict[str, Step],
    train_due: Sequence[bool],
) -> pd.DataFrame:
    """A row per model; hours are of all its seeds, ``hours_due`` of those still to be trained.

    ``train_due`` is of every seed of every model. What is not known is NaN.
    """
    seeds = len(params.run.seeds)
    rows = []
    for index, model in enumerate(models):
        experiment = params.experiment(profile, model)
        step = found.get(steps.key_of(experiment))
        seconds = float("nan") if step is None or step.seconds is None else step.seconds
        hours = seconds * experiment.training.iterations / 3600
        rows.append(
            {
                "model": model,
                "step_s": seconds,
                "iterations": experiment.training.iterations,
                "hours_per_seed": hours,
                "hours": hours * seeds,
                "hours_due": hours * sum(train_due[index * seeds : (index + 1) * seeds]),
                "memory_mib": float("nan")
                if step is None or step.peak_memory_mib is None
                else step.peak_memory_mib,
                "fits": step is None or step.seconds is not None,
            }
        )
    return pd.DataFrame(rows)


def costs_text(table: pd.DataFrame) -> str:
    shown = table.drop(columns="fits").dropna(axis="columns", how="all")
    text = as_text(shown)
    total = f"{table['hours'].sum():.2f} h of training in all, {table['hours_due'].sum():.2f} h due"
    return f"{text}\n\n{total}; reading the data, evaluation and timing come on top."


def unknown_steps(table: pd.DataFrame) -> Iterator[str]:
    """Which models the hours leave out."""
    unknown = table["step_s"].isna()
    for names, reason in (
        (table["model"][unknown & ~table["fits"]], "they do not fit into the memory"),
        (table["model"][unknown & table["fits"]], "no step of theirs is known"),
    ):
        if len(names):
            yield f"Not in the hours, as {reason}: {', '.join(names)}."


def as_text(table: pd.DataFrame) -> str:
    known = table.astype(object).where(table.notna(), None)
    return known.to_markdown(index=False, tablefmt="simple", floatfmt=".3f", missingval="-")


def in_bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")


def steps_for(
    params: Params, chosen: dict[str, Sequence[str]], device: str, save: str, limit: float
) -> tuple[dict[str, Step], str]:
    """Steps by ``steps.key_of``, and whose they are."""
    if device:
        stored = steps.load(steps_file(device))
        return stored.steps, f"Stored steps of {device}, {stored.environment['device']}."
    experiments = [
        (params.experiment(profile, model), number_of_classes(params.profile[profile].data))
        for profile, models in chosen.items()
        for model in models
    ]
    here = pick_device()
    found = steps.measure_all(experiments, here, limit)
    if save:
        steps.save(steps_file(save), found, here)
    kind = "CPU; the hours are this CPU's" if here.type == "cpu" else "GPU"
    return found, f"Steps timed here, on {device_name(here)}, a {kind}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Say what profiles will cost; train nothing.")
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help="default: run.profiles")
    parser.add_argument("--all", action="store_true", help="every model, not just run.models")
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMIT_SECONDS,
        metavar="SECONDS",
        help="time no further model after these (default: %(default).0f)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--device", default="", metavar="NAME", help="stored steps of a device")
    source.add_argument("--save", default="", metavar="NAME", help="store the steps timed here")
    given = parser.parse_args()
    try:
        params = load_params()
        models: Sequence[str] = list(params.models) if given.all else params.run.models
        chosen = dict.fromkeys(given.profiles or params.run.profiles, models)
        found, whose = steps_for(params, chosen, given.device, given.save, given.limit)
        for profile in chosen:
            print(plan(params, profile, models, found))
        print(whose)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
