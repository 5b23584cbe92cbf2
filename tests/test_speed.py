"""What a model costs is counted and timed right; how long it takes is not tested."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARGUMENTS
from torch import Tensor, nn

from deeplab_bench import speed
from deeplab_bench.experiment import Experiment
from deeplab_bench.files import format_json
from deeplab_bench.models import arguments_of, build_model
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.speed import SpeedError, count_flops, device_for, measure


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "WARM_UP_SECONDS", 0)
    monkeypatch.setattr(speed, "MEASURED_SECONDS", 0)
    monkeypatch.setattr(speed, "LEAST_SAMPLES", 3)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("arguments", "outputs"),
    [
        pytest.param({"kernel_size": 3, "padding": 1}, 10 * 14, id="same"),
        pytest.param({"kernel_size": 3}, 8 * 12, id="valid"),
        pytest.param({"kernel_size": 3, "padding": 1, "stride": 2}, 5 * 7, id="stride"),
        pytest.param({"kernel_size": 3, "padding": 2, "dilation": 2}, 10 * 14, id="atrous"),
        pytest.param({"kernel_size": 1, "bias": False}, 10 * 14, id="1x1"),
    ],
)
def test_flops_of_convolutions(arguments: dict[str, Any], outputs: int, batch: int) -> None:
    """Two for every multiply-add, of which each output has kernel x kernel x channels."""
    model = nn.Sequential(nn.Conv2d(4, 6, **arguments), nn.BatchNorm2d(6), nn.ReLU())
    by_hand = 2 * batch * outputs * 6 * 4 * arguments["kernel_size"] ** 2
    assert count_flops(model.eval(), torch.zeros(batch, 4, 10, 14)) == by_hand


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flops_of_architectures(architecture: str) -> None:
    """Those of every convolution, as often as it runs; averaging over grids adds a little."""
    known = arguments_of(architecture)
    arguments = {key: value for key, value in ARGUMENTS.items() if key in known}
    model = build_model(architecture, arguments, num_classes=4).eval()
    counts: list[int] = []

    def count(conv: Any, inputs: Any, output: Tensor) -> None:
        counts.append(2 * output[0].numel() * math.prod(conv.weight.shape[1:]))

    for m in model.modules():
        if isinstance(m, nn.Conv2d):
            m.register_forward_hook(count)
    with torch.inference_mode():
        flops = count_flops(model, torch.zeros(1, 3, 48, 33))
    assert 0 < sum(counts) <= flops <= 1.1 * sum(counts)
    if architecture != "psp":
        assert flops == sum(counts)


@pytest.mark.usefixtures("_hasty")
def test_keys_and_values(experiment: Experiment, data_folder: Path) -> None:
    result = measure(experiment, "cpu-of-a-friend", data_folder)
    assert set(result) == {
        "profile",
        "model",
        "hardware",
        "input_size",
        "parameters",
        "flops",
        "batch_size",
        "latency_ms",
        "images_per_second",
        "peak_memory_mib",
        "code_sha256",
        "environment",
    }
    labels = [result[key] for key in ("profile", "model", "hardware")]
    assert labels == ["toy", "plain", "cpu-of-a-friend"]
    assert result["input_size"] == [40, 48]
    for key in ("parameters", "flops", "batch_size", "images_per_second", "peak_memory_mib"):
        assert result[key] > 0
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"]
    assert result["latency_ms"]["samples"] == 3
    model = build_model("fcn", experiment.arguments, num_classes=6)
    assert result["parameters"] == sum(math.prod(p.shape) for p in model.parameters())
    with torch.inference_mode():
        assert result["flops"] == count_flops(model.eval(), torch.zeros(1, 3, 40, 48))
    assert result["environment"]["device"] and result["environment"]["cuda"] is None
    format_json(result)


def test_figures_from_known_times(
    experiment: Experiment, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of single images come the quantiles, of batches the throughput; the model is in eval mode."""
    single = [0.010, 0.030, 0.020, 0.050, 0.040, 0.060, 0.011]
    batched = [0.2, 0.1, 0.4]
    timed: list[tuple[int, ...]] = []

    def known(model: nn.Module, images: Tensor, title: str) -> list[float]:
        assert not model.training and torch.is_inference_mode_enabled()
        assert images.device.type == "cpu" and images.dtype == torch.float32
        timed.append(tuple(images.shape))
        return single if len(images) == 1 else batched

    monkeypatch.setattr(speed, "time_passes", known)
    result = measure(experiment, "cpu", data_folder)
    assert timed == [(1, 3, 40, 48), (result["batch_size"], 3, 40, 48)]
    p50, p90 = np.percentile(single, [50, 90])
    assert result["latency_ms"] == {
        "p50": pytest.approx(1000 * p50, abs=1e-3),
        "p90": pytest.approx(1000 * p90, abs=1e-3),
        "samples": 7,
    }
    assert result["images_per_second"] == pytest.approx(result["batch_size"] / 0.2, abs=0.01)


def test_passes_of_the_warm_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that a pass takes a second on."""
    now = 0.0

    def one_pass(model: nn.Module, images: Tensor) -> float:
        nonlocal now
        now += 1
        return now

    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(speed, "time_pass", one_pass)
    for warm_up, measured, least, expected in (
        (2, 5, 3, [3, 4, 5, 6, 7]),
        (1, 0, 2, [2, 3]),
        (0, 3, 1, [1, 2, 3]),
    ):
        now = 0.0
        monkeypatch.setattr(speed, "WARM_UP_SECONDS", warm_up)
        monkeypatch.setattr(speed, "MEASURED_SECONDS", measured)
        monkeypatch.setattr(speed, "LEAST_SAMPLES", least)
        assert speed.time_passes(nn.Identity(), torch.zeros(1), "") == expected


def test_device_is_synchronised_around_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    class Model(nn.Module):
        def forward(self, images: Tensor) -> None:
            events.append("pass")

    monkeypatch.setattr(speed, "synchronise", lambda device: events.append(f"wait for {device}"))
    monkeypatch.setattr(speed, "time", SimpleNamespace(perf_counter=clock))
    seconds = speed.time_pass(Model(), torch.zeros(1))
    assert events == ["wait for cpu", "clock", "pass", "wait for cpu", "clock"]
    assert seconds == 3


def test_synchronise_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    speed.synchronise(torch.device("cpu"))
    assert not waited
    speed.synchronise(torch.device("cuda"))
    assert waited == [torch.device("cuda")]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("label", ["cpu", "cpu-epyc"])
def test_label_of_a_processor(label: str, gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert device_for(label) == torch.device("cpu")


@pytest.mark.parametrize("label", ["h100", "gpu", "old-cpu"])
def test_any_other_label_is_a_gpu(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_for(label).type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SpeedError, match=f"run.hardware names '{label}' .* no GPU .* use 'cpu'"):
        device_for(label)
