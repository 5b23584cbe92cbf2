"""Tests that fingerprints tell every change of the weights, and its layer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARGUMENTS, train_run
from torch import Tensor, nn

from deeplab_bench.models import build_model
from deeplab_bench.results.provenance import derive_provenance
from deeplab_bench.results.records import FingerprintRecord, read_record, write_record
from deeplab_bench.settings.experiment import Experiment, Phase
from deeplab_bench.training import watch as watch_module
from deeplab_bench.training.fingerprints import (
    LAYER_DIGITS,
    compute_fingerprint,
    describe_layers,
    list_fingerprint_points,
    list_statistics,
    select_losses,
)
from deeplab_bench.training.trainer import Trainer


def split_digits(digits: str) -> list[str]:
    return [digits[i : i + LAYER_DIGITS] for i in range(0, len(digits), LAYER_DIGITS)]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    arguments = {key: ARGUMENTS[key] for key in ("backbone", "width", "output_stride")}
    return build_model("fcn", arguments, num_classes=4)


def test_every_tensor_belongs_to_one_layer(model: nn.Module) -> None:
    """Flip one bit of every parameter and buffer in turn."""
    before = compute_fingerprint(model)
    layers, statistics = list(describe_layers(model)), list_statistics(model)
    of_buffers = {name for name, _ in model.named_buffers()}
    state = model.state_dict()
    for key, value in state.items():
        flat = value.view(-1).view(torch.uint8)
        flat[-1] ^= 1
        after = compute_fingerprint(model)
        flat[-1] ^= 1
        assert after["weights"] != before["weights"]
        kind, names = ("statistics", statistics) if key in of_buffers else ("parameters", layers)
        pairs = zip(names, split_digits(before[kind]), split_digits(after[kind]), strict=True)
        changed = [name for name, one, other in pairs if one != other]
        assert changed == [key.rpartition(".")[0]]
    assert compute_fingerprint(model) == before


def test_the_order_in_memory_does_not_matter(model: nn.Module) -> None:
    before = compute_fingerprint(model)
    assert compute_fingerprint(model.to(memory_format=torch.channels_last)) == before


def test_layers_are_described(model: nn.Module) -> None:
    layers = describe_layers(model)
    assert layers["backbone.conv1"] == "Conv2d 7x7, stride 2"
    assert layers["backbone.layer4.1.conv2"] == "Conv2d 3x3, rate 2"
    assert layers["backbone.bn1"] == "BatchNorm2d"
    assert list(layers)[:2] == ["backbone.conv1", "backbone.bn1"]
    assert list_statistics(model)[0] == "backbone.bn1"


@pytest.mark.parametrize("iterations", [1, 2, 5, 23, 24, 25, 240, 1376, 30000])
def test_the_number_of_points_is_bounded(iterations: int) -> None:
    points = list_fingerprint_points(iterations)
    assert points >= {0, 1, min(iterations, 3), iterations}
    assert max(points) == iterations and len(points) <= 29
    assert len(select_losses(torch.zeros(iterations))) <= 270


def test_losses_are_exact() -> None:
    losses = torch.rand(450, generator=torch.Generator().manual_seed(0)) / 3
    losses[3], losses[7] = math.inf, math.nan
    selected = select_losses(losses)
    assert list(selected)[:20] == list(range(1, 21)) and max(selected) == 450
    assert selected.pop(4) is None and selected.pop(8) is None
    for iteration, loss in selected.items():
        assert torch.tensor(loss) == losses[iteration - 1]


class Interrupted(BaseException):
    """An exception in place of SIGINT."""


def in_two_phases(experiment: Experiment) -> Experiment:
    schedule = experiment.training.model_copy(update={"iterations": 4})
    second = Phase(arguments=experiment.arguments | {"output_stride": 8}, training=schedule)
    return experiment.model_copy(update={"second_phase": second})


def test_an_interruption_changes_nothing(
    experiment: Experiment, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupt both phases, whose iterations count on."""
    experiment = in_two_phases(experiment)
    whole = train_run(experiment, 0, data_folder, tmp_path / "whole.pt")
    assert list(whole["points"]) == [str(i) for i in range(11)]
    assert list(whole["losses"]) == [str(i) for i in range(1, 11)]
    step = Trainer.step
    monkeypatch.setattr(watch_module, "SNAPSHOT_SECONDS", -1)
    for stop in ((6, 3), (4, 2)):  # the iterations of the phase, and how many of them run

        def stopping(
            self: Trainer, images: Tensor, labels: Tensor, stop: tuple[int, int] = stop
        ) -> None:
            if (self.training.iterations, self.iteration) == stop:
                raise Interrupted
            step(self, images, labels)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", stopping)
            with pytest.raises(Interrupted):
                train_run(experiment, 0, data_folder, tmp_path / "cut.pt")
    assert train_run(experiment, 0, data_folder, tmp_path / "cut.pt") == whole


def test_fingerprints_are_those_of_the_weights(
    experiment: Experiment, data_folder: Path, tmp_path: Path
) -> None:
    """Check the record, the last point against the checkpoint, and that all points differ."""
    found = train_run(experiment, 0, data_folder, tmp_path / "x.pt")
    state: Any = torch.load(tmp_path / "x.pt", weights_only=True)
    model = build_model(experiment.architecture, experiment.arguments, num_classes=6)
    model.load_state_dict(state["model"])
    assert found["points"][str(experiment.training.iterations)] == compute_fingerprint(model)
    weights = [point["weights"] for point in found["points"].values()]
    assert len(set(weights)) == len(weights) == 7
    assert len(found["layers"]) * LAYER_DIGITS == len(found["points"]["0"]["parameters"])
    provenance = derive_provenance(experiment, 0, data_folder).model_dump()
    identity = {"profile": "toy", "model": "plain", "seed": 0, "provenance": provenance}
    write_record(tmp_path / "x.json", FingerprintRecord, identity | found)
    record = read_record(tmp_path / "x.json", FingerprintRecord)
    assert [point.weights for point in record.points.values()] == weights
