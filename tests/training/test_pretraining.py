"""Tests of pretraining: its images, its training, and models that start from its weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import JsonValue
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models.resnet import BasicBlock

from deeplab_bench.data.dataset import build_data_set
from deeplab_bench.data.packed import Split
from deeplab_bench.models import build_model
from deeplab_bench.models.classifier import Classifier
from deeplab_bench.models.weights import initialise_backbone
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.pretraining import PretrainingTask
from deeplab_bench.settings.training import Training
from deeplab_bench.training import watch as watch_module
from deeplab_bench.training.pretraining import draw_split, measure_accuracy, pretrain
from deeplab_bench.training.trainer import Trainer

DATA: dict[str, JsonValue] = {
    "dataset": "shapes",
    "seed": 3,
    "image_size": 48,
    "train_images": 2,
    "val_images": 2,
}
ARGUMENTS: dict[str, Any] = {"backbone": "resnet18", "width": 0.25}


def make_task(**training: Any) -> PretrainingTask:
    schedule: dict[str, Any] = {
        "iterations": 4,
        "batch_size": 4,
        "crop_size": (32, 32),
        "base_lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "random_scale": (1.0, 1.0),
        "horizontal_flip": True,
        "precision": "float32",
        "loss_resolution": "logits",
        "zero_init_residual": True,
    }
    experiment = Experiment(
        profile="tiny",
        model="classifier",
        architecture="classifier",
        arguments=ARGUMENTS,
        training=Training.model_validate(schedule | training),
    )
    return PretrainingTask(
        data=DATA, images=12, held_out_images=5, image_size=32, experiment=experiment
    )


def load(path: Path) -> Any:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def task() -> PretrainingTask:
    return make_task()


@pytest.fixture(scope="module")
def finished(task: PretrainingTask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    weights = tmp_path_factory.mktemp("finished") / "pretrained.pt"
    result, timing = pretrain(task, weights)
    assert timing["training_seconds"] > 0
    return weights, result


def test_the_file_is_a_state_dict_that_torchvision_takes(finished: tuple[Path, Any]) -> None:
    """Compare the logits with torchvision's network of the same width."""
    state = load(finished[0])
    torch.manual_seed(0)
    theirs = TorchvisionResNet(BasicBlock, [2, 2, 2, 2], num_classes=5)
    for module in list(theirs.modules()):
        for key, value in vars(module).items():
            if key in ("in_channels", "out_channels", "num_features") and value > 3:
                setattr(module, key, value // 4)
    for name, parameter in [*theirs.named_parameters(), *theirs.named_buffers()]:
        parameter.data = torch.empty_like(state[name])
    theirs.load_state_dict(state)
    ours = Classifier(num_classes=5, **ARGUMENTS)
    initialise_backbone(ours, state)
    ours.fc.load_state_dict({"weight": state["fc.weight"], "bias": state["fc.bias"]})
    images = torch.randn(2, 3, 65, 97)  # no padding
    with torch.no_grad():
        expected = theirs.eval()(images)
        torch.testing.assert_close(ours.eval().logits(images)[:, :, 0, 0], expected)


def test_a_narrow_model_starts_from_the_file(finished: tuple[Path, Any]) -> None:
    state = load(finished[0])
    model = build_model("cascade", ARGUMENTS | {"output_stride": 16}, num_classes=5)
    initialise_backbone(model, state)
    own = model.state_dict()
    assert torch.equal(own["backbone.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert torch.equal(own["backbone.layer7.0.conv2.weight"], state["layer4.1.conv2.weight"])


def test_the_same_task_gives_the_same_bytes_even_if_interrupted(
    task: PretrainingTask,
    finished: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights, expected = finished
    other = tmp_path / "pretrained.pt"
    step = Trainer.step

    def interrupted(self: Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        if self.iteration == 2:
            raise KeyboardInterrupt
        step(self, images, labels)

    with monkeypatch.context() as patch:
        patch.setattr(watch_module, "SNAPSHOT_SECONDS", -1)
        patch.setattr(Trainer, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(task, other)
    assert not other.exists()
    steps: list[int] = []

    def watched(self: Trainer, images: torch.Tensor, labels: torch.Tensor) -> None:
        steps.append(self.iteration)
        step(self, images, labels)

    monkeypatch.setattr(Trainer, "step", watched)
    result, _ = pretrain(task, other)
    assert steps == [2, 3]
    assert other.read_bytes() == weights.read_bytes()
    assert result == expected
    assert {path.name for path in tmp_path.iterdir()} == {"pretrained.pt", "pretraining.lock"}


def test_images_are_held_out(task: PretrainingTask) -> None:
    data = build_data_set(task.data)
    learned, held_out = draw_split(data, range(12), 32), draw_split(data, range(12, 17), 32)
    known = {learned.image(index).tobytes() for index in range(12)}
    assert not known & {held_out.image(index).tobytes() for index in range(5)}


def test_the_classes_can_be_learned() -> None:
    """Check that a short training names most classes of the images that it saw."""
    task = make_task(iterations=40, batch_size=16)
    data = build_data_set(task.data)
    split = draw_split(data, range(16), 32)
    model = Classifier(num_classes=5, **ARGUMENTS)
    assert measure_accuracy(model, split) < 0.7
    torch.manual_seed(0)
    trainer = Trainer(model, task.experiment.training, torch.device("cpu"))
    images = torch.from_numpy(split.images.reshape(16, 32, 32, 3)).permute(0, 3, 1, 2)
    labels = torch.from_numpy(split.labels.reshape(16, 32, 32))
    for _ in range(40):
        trainer.step(images, labels)
    assert measure_accuracy(model, split) > 0.8


def test_accuracy_counts_images() -> None:
    """Check a classifier that always names class 2."""
    model = Classifier(num_classes=5, **ARGUMENTS)
    torch.nn.init.zeros_(model.fc.weight)
    model.fc.bias.data = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])
    classes = [2, 1, 2, 3]
    labels = np.repeat(np.array(classes, dtype=np.uint8), 32 * 32)
    split = Split(
        names=list("abcd"),
        sizes=[(32, 32)] * 4,
        classes=list("01234"),
        images=np.zeros(4 * 3 * 32 * 32, dtype=np.uint8),
        labels=labels,
        starts=[index * 32 * 32 for index in range(4)],
    )
    assert measure_accuracy(model, split) == 0.5
