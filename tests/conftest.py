"""Fixtures: a tiny data set, and the settings of a tiny model."""

import os

from deeplab_bench.runtime.pins import list_pins

os.environ |= list_pins("portable", threads=1)


import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_bench.data.packed import Split, load_split
from deeplab_bench.data.packing import pack
from deeplab_bench.data.pixels import write_label
from deeplab_bench.data.shapes import CLASSES, draw_scene
from deeplab_bench.data.voc_layout import VocFolder
from deeplab_bench.evaluation.checkpoint import Checkpoint, open_checkpoint
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.training import Training
from deeplab_bench.training.train import train
from deeplab_bench.writing import write_tensors

# What any architecture may need, as small as it goes.
ARGUMENTS = {
    "backbone": "resnet18",
    "width": 0.25,
    "output_stride": 16,
    "head_channels": 8,
    "atrous_rates": (1, 2),
}
# A schedule for settings that nothing is trained with.
SCHEDULE = {
    "iterations": 20,
    "batch_size": 4,
    "crop_size": [32, 32],
    "base_lr": 0.05,
    "poly_power": 0.9,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "random_scale": [0.5, 2.0],
    "horizontal_flip": True,
    "precision": "float32",
}
SIDE = 48
SIZES = {  # of the images, (height, width)
    "train": [(48, 48), (40, 48), (48, 36), (32, 32), (48, 48), (45, 41), (48, 48)],
    "val": [(40, 48), (33, 47), (48, 48), (48, 32), (41, 41), (32, 40), (45, 38), (48, 33)],
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each process begin with its share of the files that take long, the longest first.

    At the end, one process would wait for the other. A file stays in one process, as its tests
    share what is set up for them. pytest-xdist gives each process an equal part of the list.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long, short = [], []
    for _, tests in itertools.groupby(items, lambda item: item.path):
        file = list(tests)
        if seconds := get_seconds(file[0]):
            long.append((seconds, file))
        else:
            short += file
    parts: list[list[pytest.Item]] = [[] for _ in range(processes)]
    loads = [0] * processes
    for seconds, file in sorted(long, key=lambda each: -each[0]):
        least = loads.index(min(loads))
        loads[least] += seconds
        parts[least] += file
    left = len(items)
    items.clear()
    for index, part in enumerate(parts):
        size = left // (processes - index)
        more = max(0, size - len(part))
        items += [*part, *short[:more]]
        del short[:more]
        left -= size
    items += short


def get_seconds(item: pytest.Item) -> int:
    """Return how long the file of a test takes by itself, about, if that is long."""
    marker = item.get_closest_marker("long")
    return marker.kwargs["seconds"] if marker else 0


@pytest.fixture(scope="module", autouse=True)
def _torch_settings() -> Iterator[None]:
    """Use one thread, which is faster for such small maps, and restore the settings of torch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack splits of generated images of several sizes; no image shows the last class."""
    root = tmp_path_factory.mktemp("data")
    source = VocFolder(root / "voc")
    for sub in ("JPEGImages", "SegmentationClass"):
        (source.root / sub).mkdir(parents=True)
    names: dict[str, list[str]] = {}
    for stream, (split, sizes) in enumerate(SIZES.items()):
        names[split] = [f"{split}_{index}" for index in range(len(sizes))]
        for index, (height, width) in enumerate(sizes):
            scene = draw_scene(np.random.RandomState([0, stream, index]), SIDE)
            name = names[split][index]
            Image.fromarray(scene.image[:height, :width]).save(
                source.image_path(name).with_suffix(".png")
            )
            write_label(source.label_path(name), scene.label[:height, :width])
    pack(source, names, [*CLASSES, "star"], root / "toy")
    return root / "toy"


@pytest.fixture(scope="session")
def experiment() -> Experiment:
    return Experiment(
        profile="toy",
        model="plain",
        architecture="fcn",
        arguments={"backbone": "resnet18", "width": 0.25, "output_stride": 16},
        training=Training(
            iterations=6,
            batch_size=2,
            crop_size=(32, 40),
            base_lr=0.05,
            poly_power=0.9,
            momentum=0.9,
            weight_decay=0.0001,
            random_scale=(0.5, 2.0),
            horizontal_flip=True,
            precision="float32",
        ),
    )


@pytest.fixture(scope="module")
def checkpoint_file(
    experiment: Experiment, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train a run of seed 0 and return its checkpoint."""
    path = tmp_path_factory.mktemp("checkpoints") / "plain-0.pt"
    train_balanced(experiment, data_folder, path)
    return path


@pytest.fixture(scope="module")
def checkpoint(experiment: Experiment, data_folder: Path, checkpoint_file: Path) -> Checkpoint:
    return open_run(experiment, 0, data_folder, checkpoint_file)


@pytest.fixture(scope="session")
def val(data_folder: Path) -> Split:
    return load_split(data_folder, "val")


@pytest.fixture
def _undrawn_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave weights as they are allocated: without data, to draw them takes most of the time."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, lambda weights, *_, **__: weights)


@pytest.fixture
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out of a report, as to draw them takes seconds."""
    monkeypatch.setattr("deeplab_bench.report.plots.render", lambda results: {})


def train_run(
    experiment: Experiment, seed: int, data_folder: Path, checkpoint: Path, workers: int = 0
) -> dict[str, Any]:
    """Train a run as the stage does, in this process unless ``workers`` are asked for."""
    provenance = derive_provenance(experiment, seed, data_folder)
    return train(experiment, seed, data_folder, checkpoint, provenance.model_dump(), workers)


@pytest.fixture(scope="session")
def finished(
    experiment: Experiment, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Train without interruption, where there is nothing to validate on."""
    checkpoint = tmp_path_factory.mktemp("finished") / "plain-0.pt"
    train_run(experiment, 0, data_folder, checkpoint)
    return checkpoint


def open_run(experiment: Experiment, seed: int, data_folder: Path, checkpoint: Path) -> Checkpoint:
    """Open the checkpoint of a run as the later stages do."""
    return open_checkpoint(checkpoint, derive_provenance(experiment, seed, data_folder))


def train_balanced(experiment: Experiment, data_folder: Path, path: Path) -> None:
    """Train, then give all classes the same mean logit, so that several classes are predicted."""
    train_run(experiment, 0, data_folder, path)
    model = open_run(experiment, 0, data_folder, path).build_model().eval()
    image = torch.from_numpy(load_split(data_folder, "val").image(0).transpose(2, 0, 1).copy())
    with torch.no_grad():
        means = model(model.colours.normalise(image[None])).mean(dim=(0, 2, 3))
    state = torch.load(path, map_location="cpu", weights_only=True)
    state["model"]["classifier.1.bias"] -= means
    write_tensors(path, state)
