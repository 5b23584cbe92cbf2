"""What a profile will cost: ``python -m deeplab_bench.plan [PROFILE ...]`` trains nothing.

The stages that are due, what they download, the disk they fill, and the hours of training, from
steps timed on this machine's device or from stored ones of another.
"""

import argparse
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from deeplab_bench.data import voc2012
from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.packed import MANIFEST, read_manifest
from deeplab_bench.data.preparation import archives_of, class_names
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.due import Due, due_stages
from deeplab_bench.errors import UserError
from deeplab_bench.models import build_model, check_arguments
from deeplab_bench.models.weights import imagenet_weights
from deeplab_bench.results.files import data_folder, steps_file
from deeplab_bench.results.provenance import device_name
from deeplab_bench.runtime.device import pick_device
from deeplab_bench.settings.params import Data, FolderData, Params, ShapesData, load_params
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.timing import steps
from deeplab_bench.timing.steps import Case, Step
from deeplab_bench.training.pretrained import archive_of

LIMIT_SECONDS = 600.0
# Of published data sets: the most images that are packed, and about the pixels of one.
IMAGES = {"camvid": 367 + 101, "voc2012": 10_582 + 1_449}
PIXELS = {"camvid": 360 * 480, "voc2012": 375 * 500}
BYTES_PER_PIXEL = 4  # RGB and the label

UNKNOWN = Step(seconds=None, batch_size=0, peak_memory_mib=None)


def plan(params: Params, profile: str, models: Sequence[str], found: dict[str, Step]) -> str:
    """The text of a profile; ``found`` are steps by the key of their case."""
    due = due_stages(params, profile, models)
    table = costs(params, profile, models, found, due["train"])
    blocks = [
        f"Plan of {profile}: {len(models)} models, {len(params.run.seeds)} seeds",
        stages_text(due),
        "\n".join([*download_lines(params, profile, models), disk(params, profile, models)]),
        costs_text(table),
        *studies_text(params, table),
        *unknown_steps(table),
    ]
    return "\n\n".join(blocks) + "\n"


def stages_text(due: Due) -> str:
    rows = [{"stage": name, "due": sum(of), "of": len(of)} for name, of in due.items() if of]
    return as_text(pd.DataFrame(rows))


def download_lines(params: Params, profile: str, models: Sequence[str]) -> Iterator[str]:
    """A line per archive of the data, and per backbone whose weights come from ImageNet."""
    sizes = {
        a.filename: a.size_bytes
        for a in archives_of(params.profile[profile].data, voc2012.PUBLISHED)
    }
    for model in models:
        experiment = params.experiment(profile, model)
        if experiment.training.weights == "imagenet":
            backbone = experiment.arguments["backbone"]
            mebibytes = imagenet_weights(backbone).meta["_file_size"]
            sizes[archive_of(backbone).filename] = round(mebibytes * 2**20)
    for filename, size in sizes.items():
        stated = "of unstated size" if size is None else in_bytes(size)
        there = (DOWNLOADS / filename).is_file()
        yield f"Download: {filename}, {stated}{', there already' if there else ''}"


def disk(params: Params, profile: str, models: Sequence[str]) -> str:
    """Archives count twice, as they lie unpacked beside themselves while they are converted."""
    data = params.profile[profile].data
    checkpoints = sum(checkpoint_bytes(params, profile, model) for model in models)
    parts = {
        "archives and what is unpacked from them": 2
        * sum(archive.size_bytes or 0 for archive in archives_of(data, voc2012.PUBLISHED)),
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
            count, pixels = IMAGES[data.dataset], PIXELS[data.dataset]
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


def cases_of(params: Params, profile: str, model: str) -> list[Case]:
    """Each phase of a model's training."""
    experiment = params.experiment(profile, model)
    classes = number_of_classes(params.profile[profile].data)
    return [Case(experiment.architecture, phase, classes) for phase in experiment.phases]


def costs(
    params: Params,
    profile: str,
    models: Sequence[str],
    found: dict[str, Step],
    train_due: Sequence[bool],
) -> pd.DataFrame:
    """A row per phase of a model; hours are of all its seeds, ``hours_due`` of those not trained.

    ``train_due`` is of every seed of every model. What is not known is NaN. ``pflop`` is 10^15
    floating-point operations of all seeds, on whatever device.
    """
    seeds = len(params.run.seeds)
    rows = []
    for index, model in enumerate(tqdm(models, desc="counting operations", unit="model")):
        due = sum(train_due[index * seeds : (index + 1) * seeds])
        for case in cases_of(params, profile, model):
            step = found.get(case.key, UNKNOWN)
            iterations = case.phase.training.iterations
            hours = (step.seconds or math.nan) * iterations / 3600
            rows.append(
                {
                    "model": model,
                    "step_s": step.seconds,
                    "iterations": iterations,
                    "pflop": seeds * training_flops(case) / 1e15,
                    "hours_per_seed": hours,
                    "hours": hours * seeds,
                    "hours_due": hours * due,
                    "memory_mib": step.peak_memory_mib,
                    "fits": step is UNKNOWN or step.seconds is not None,
                }
            )
    return pd.DataFrame(rows).astype({"step_s": float, "memory_mib": float})


def training_flops(case: Case) -> int:
    """Of a phase from one seed: the forward pass by torch's counter, and twice as many backward.

    Nothing is computed: the tensors have no data.
    """
    training = case.phase.training
    with torch.device("meta"):
        model = build_model(case.architecture, case.phase.arguments, num_classes=case.num_classes)
        images = torch.empty(training.batch_size, 3, *training.crop_size)
        with FlopCounterMode(display=False) as counter:
            model.training_scores(images)
    return 3 * int(counter.get_total_flops()) * training.iterations


def costs_text(table: pd.DataFrame) -> str:
    shown = table.drop(columns="fits").dropna(axis="columns", how="all")
    text = as_text(shown)
    total = f"{table['hours'].sum():.2f} h of training in all, {table['hours_due'].sum():.2f} h due"
    return (
        f"{text}\n\n{total}; reading the data, evaluation and timing come on top.\n"
        f"{table['pflop'].sum():,.3f} PFLOP of training: a multiply-add as two, convolutions and "
        "matrix products alone."
    )


def studies_text(params: Params, table: pd.DataFrame) -> list[str]:
    """Hours of the studies whose models are all planned and timed; they share some models."""
    hours = table.groupby("model")["hours"].agg(lambda phases: phases.sum(skipna=False))
    rows = [
        {"study": name, "models": len(study.models), "hours": hours[list(study.models)].sum()}
        for name, study in params.studies.items()
        if hours.reindex(study.models).notna().all()
    ]
    return [as_text(pd.DataFrame(rows))] if rows else []


def unknown_steps(table: pd.DataFrame) -> Iterator[str]:
    """Which models the hours leave out."""
    unknown = table["step_s"].isna()
    for names, reason in (
        (table["model"][unknown & ~table["fits"]], "they do not fit into the memory"),
        (table["model"][unknown & table["fits"]], "no step of theirs is known"),
    ):
        if len(names):
            yield f"Not in the hours, as {reason}: {', '.join(dict.fromkeys(names))}."


def possible(params: Params, profile: str) -> list[str]:
    """The models whose networks can be built under a profile."""
    return [model for model in params.models if is_possible(params.experiment(profile, model))]


def is_possible(experiment: Experiment) -> bool:
    try:
        for phase in experiment.phases:
            check_arguments(experiment.architecture, phase.arguments)
    except ValueError:
        return False
    return True


def as_text(table: pd.DataFrame) -> str:
    known = table.astype(object).where(table.notna(), None)
    return known.to_markdown(index=False, tablefmt="simple", floatfmt=".3f", missingval="-")


def in_bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")


def steps_for(
    params: Params, chosen: Mapping[str, Sequence[str]], device: str, save: str, limit: float
) -> tuple[dict[str, Step], str]:
    """Steps by the key of their case, and whose they are."""
    if device:
        stored = steps.load(steps_file(device))
        return stored.steps, f"Stored steps of {device}, {stored.environment['device']}."
    cases = [
        case
        for profile, models in chosen.items()
        for model in models
        for case in cases_of(params, profile, model)
    ]
    here = pick_device()
    found = steps.measure_all(cases, here, limit)
    if save:
        steps.save(steps_file(save), found, here)
    kind = "CPU; the hours are this CPU's" if here.type == "cpu" else "GPU"
    return found, f"Steps timed here, on {device_name(here)}, a {kind}."


def main() -> None:
    parser = argparse.ArgumentParser(description="Say what profiles will cost; train nothing.")
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help="default: run.profiles")
    parser.add_argument(
        "--all",
        action="store_true",
        help="every model that the profile can have, not just run.models",
    )
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
        chosen = {
            profile: possible(params, profile) if given.all else params.run.models
            for profile in given.profiles or params.run.profiles
        }
        found, whose = steps_for(params, chosen, given.device, given.save, given.limit)
        for profile, models in chosen.items():
            print(plan(params, profile, models, found))
        print(whose)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
