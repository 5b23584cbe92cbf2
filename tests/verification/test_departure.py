"""Tests that two trainings are told apart: the iteration, the pass and the layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import train_run
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deeplab_bench.models import build_model
from deeplab_bench.results.provenance import Provenance
from deeplab_bench.results.records import Fingerprint, FingerprintRecord
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.training import train as train_module
from deeplab_bench.training.trainer import Trainer
from deeplab_bench.verification.departure import Departure, find_departure

PROVENANCE = Provenance(settings_sha256="", data_sha256="", weights_sha256=None, code_sha256={})
Disturb = Callable[[nn.Module], RemovableHandle]


@contextmanager
def disturbed(iteration: int, disturb: Disturb) -> Iterator[None]:
    """Hang a hook into the network during one iteration, counted from 1."""
    step = Trainer.step

    def disturbed_step(self: Trainer, images: Tensor, labels: Tensor) -> None:
        hook = disturb(self.model) if self.iteration == iteration - 1 else None
        step(self, images, labels)
        if hook is not None:
            hook.remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", disturbed_step)
        yield


def disturb_forward(layer: str) -> Disturb:
    def disturb(model: nn.Module) -> RemovableHandle:
        return model.get_submodule(layer).register_forward_hook(lambda m, x, y: y + 1e-3)

    return disturb


def disturb_gradient(parameter: str) -> Disturb:
    def disturb(model: nn.Module) -> RemovableHandle:
        return model.get_parameter(parameter).register_hook(lambda g: 1.01 * g + 1e-3)

    return disturb


@pytest.fixture(scope="module")
def long(experiment: Experiment) -> Experiment:
    """Train so long that not every iteration has a fingerprint: 6, 9, 12, ... have one."""
    training = experiment.training.model_copy(update={"iterations": 60})
    return experiment.model_copy(update={"training": training})


@pytest.fixture(scope="module")
def train(
    data_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Experiment], FingerprintRecord]:
    def train(experiment: Experiment) -> FingerprintRecord:
        path = tmp_path_factory.mktemp("run") / "x.pt"
        return as_record(train_run(experiment, 0, data_folder, path))

    return train


def as_record(fingerprints: dict[str, Any]) -> FingerprintRecord:
    points = {int(i): Fingerprint(**point) for i, point in fingerprints["points"].items()}
    losses = {int(i): loss for i, loss in fingerprints["losses"].items()}
    return FingerprintRecord(
        profile="toy",
        model="plain",
        seed=0,
        provenance=PROVENANCE,
        layers=fingerprints["layers"],
        statistics=tuple(fingerprints["statistics"]),
        losses=losses,
        points=points,
    )


Train = Callable[[Experiment], FingerprintRecord]


@pytest.fixture(scope="module")
def committed(experiment: Experiment, train: Train) -> FingerprintRecord:
    return train(experiment)


@pytest.fixture(scope="module")
def long_committed(long: Experiment, train: Train) -> FingerprintRecord:
    return train(long)


def find(committed: FingerprintRecord, here: FingerprintRecord) -> Departure:
    departure = find_departure(committed, here)
    assert departure is not None
    return departure


def test_the_same_run(experiment: Experiment, committed: FingerprintRecord, train: Train) -> None:
    assert find_departure(committed, train(experiment)) is None


@pytest.mark.parametrize("iteration", [1, 2, 3])
def test_the_forward_pass(
    iteration: int, experiment: Experiment, committed: FingerprintRecord, train: Train
) -> None:
    with disturbed(iteration, disturb_forward("backbone.layer3.0.conv2")):
        departure = find(committed, train(experiment))
    assert (departure.first, departure.last) == (iteration, iteration)
    assert departure.where == (
        "forward pass, first seen in backbone.layer3.0.bn2 (BatchNorm2d) "
        "after backbone.layer3.0.conv2 (Conv2d 3x3)"
    )


def test_the_forward_pass_after_the_last_statistics(
    experiment: Experiment, committed: FingerprintRecord, train: Train
) -> None:
    def scale(model: nn.Module) -> RemovableHandle:
        classifier = model.get_submodule("classifier.1")
        return classifier.register_forward_hook(lambda m, x, y: 1.001 * y)

    with disturbed(2, scale):
        departure = find(committed, train(experiment))
    assert (departure.first, departure.last) == (2, 2)
    assert departure.where == "forward pass, seen in the loss"
    assert departure.loss_change is not None and 1e-7 < departure.loss_change < 1e-2


@pytest.mark.parametrize("iteration", [1, 3])
def test_the_backward_pass(
    iteration: int, experiment: Experiment, committed: FingerprintRecord, train: Train
) -> None:
    with disturbed(iteration, disturb_gradient("backbone.layer2.1.conv1.weight")):
        departure = find(committed, train(experiment))
    assert (departure.first, departure.last) == (iteration, iteration)
    assert departure.where == (
        "backward pass or optimiser, first seen in backbone.layer2.1.conv1 (Conv2d 3x3)"
    )


def test_a_learning_rate(
    experiment: Experiment, committed: FingerprintRecord, train: Train
) -> None:
    training = experiment.training.model_copy(update={"base_lr": 0.051})
    departure = find(committed, train(experiment.model_copy(update={"training": training})))
    assert (departure.first, departure.last) == (1, 1)
    assert departure.where.startswith("backward pass or optimiser, first seen in classifier.1 ")
    assert departure.loss_change is not None and departure.loss_change > 1e-5


def test_the_initial_weights(
    experiment: Experiment,
    committed: FingerprintRecord,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def build_otherwise(*args: Any, **keys: Any) -> nn.Module:
        model = build_model(*args, **keys)
        with torch.no_grad():
            model.get_parameter("backbone.layer1.0.conv1.weight")[0, 0, 0, 0] += 1e-6
        return model

    monkeypatch.setattr(train_module, "build_model", build_otherwise)
    departure = find(committed, train(experiment))
    assert (departure.first, departure.last) == (0, 0)
    assert departure.where == "first backbone.layer1.0.conv1 (Conv2d 3x3)"
    assert str(departure).startswith("initial weights: first backbone.layer1.0.conv1")


def test_losses_tell_the_iteration_between_two_fingerprints(
    long: Experiment, long_committed: FingerprintRecord, train: Train
) -> None:
    with disturbed(8, disturb_gradient("backbone.layer2.1.conv1.weight")):
        departure = find(long_committed, train(long))
    assert (departure.first, departure.last) == (8, 9)
    layers = len(long_committed.layers)
    assert departure.where == (
        "backward pass or optimiser of 8, or forward pass of 9; "
        f"after iteration 9, {layers} of {layers} layers differ"
    )


def test_a_single_layer_between_two_fingerprints(
    long: Experiment, long_committed: FingerprintRecord, train: Train
) -> None:
    """Check the last iteration before a fingerprint: nothing has spread."""
    with disturbed(9, disturb_gradient("backbone.layer2.1.conv1.weight")):
        departure = find(long_committed, train(long))
    assert (departure.first, departure.last) == (9, 9)
    assert departure.where == (
        "backward pass or optimiser; after iteration 9, 1 of "
        f"{len(long_committed.layers)} layers differ, backbone.layer2.1.conv1 first"
    )


def test_other_layers(committed: FingerprintRecord) -> None:
    layers = {name: kind for name, kind in committed.layers.items() if name != "backbone.bn1"}
    here = committed.model_copy(update={"layers": layers})
    assert "same layers: backbone.bn1" in str(find(committed, here))


def test_a_loss_that_departs_alone(committed: FingerprintRecord) -> None:
    losses = committed.losses | {4: (committed.losses[4] or 0) * 1.5}
    departure = find(committed, committed.model_copy(update={"losses": losses}))
    assert (departure.last, departure.where) == (4, "the loss, not the weights")
    assert departure.loss_change == pytest.approx(0.5)
