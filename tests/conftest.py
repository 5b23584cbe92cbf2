"""A tiny data set and the settings of a tiny model, for tests that train, score or time one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_bench.data.batches import normalise
from deeplab_bench.data.packed import load_split, pack
from deeplab_bench.data.shapes import CLASSES, draw_scene
from deeplab_bench.data.voc_layout import VocFolder, write_label
from deeplab_bench.models import build_model
from deeplab_bench.settings.schema import Experiment
from deeplab_bench.settings.training import Training
from deeplab_bench.training import train as training

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


@pytest.fixture(scope="module", autouse=True)
def _torch_settings() -> Iterator[None]:
    """One thread, as maps this small are slower on several, and no setting left behind."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packed splits of generated images of several sizes; no image shows the last class."""
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
def checkpoint(
    experiment: Experiment, data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "plain-0.pt"
    train_balanced(experiment, data_folder, path)
    return path


def train_balanced(experiment: Experiment, data_folder: Path, path: Path) -> None:
    """Train, then shift the classes' scores to equal means: so little would predict one alone."""
    training.train(experiment, 0, data_folder, path, workers=0)
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6).eval()
    model.load_state_dict(state["model"])
    image = torch.from_numpy(load_split(data_folder, "val").image(0).transpose(2, 0, 1).copy())
    with torch.no_grad():
        scores = model(normalise(image[None])).mean(dim=(0, 2, 3))
    state["model"]["classifier.1.bias"] -= scores
    training.write_atomically(path, state)
