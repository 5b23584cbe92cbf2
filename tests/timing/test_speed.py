"""Tests of the costs of a model. None depends on real durations."""

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ARGUMENTS
from torch import Tensor, nn

from deeplab_bench.data.packed import Split
from deeplab_bench.models import build_model, list_arguments
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.results.records import SpeedRecord
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.timing import speed
from deeplab_bench.timing.speed import (
    REFERENCE,
    build_reference_network,
    count_flops,
    list_output_strides,
    measure,
    search_throughput,
)
from deeplab_bench.writing import format_json

CPU = torch.device("cpu")


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
    """Check kernel x kernel x channels multiply-adds per output, each counted as two."""
    model = nn.Sequential(nn.Conv2d(4, 6, **arguments), nn.BatchNorm2d(6), nn.ReLU())
    by_hand = 2 * batch * outputs * 6 * 4 * arguments["kernel_size"] ** 2
    assert count_flops(model.eval(), torch.zeros(batch, 4, 10, 14)) == by_hand


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_flops_of_architectures(architecture: str) -> None:
    """Compare with the FLOPs of all convolutions; average pooling over grids adds a little."""
    known = list_arguments(architecture)
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


@pytest.fixture
def _known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the times: 0.5 s for the reference, 1 s and 2 s for all other work."""

    def rounds(works: Mapping[str, Callable[[], object]], *_: Any, **__: Any) -> Any:
        for work in works.values():
            work()
        return {name: [0.5, 0.5] if name == REFERENCE else [1.0, 2.0] for name in works}

    monkeypatch.setattr(speed, "time_in_rounds", rounds)
    monkeypatch.setattr(speed, "CPU_PIXELS", 2 * 40 * 48)


def read(result: dict[str, Any]) -> SpeedRecord:
    """Read a result as the report does, once the stage has added the digest of its code."""
    return SpeedRecord.model_validate_json(format_json(result | {"code_sha256": {}}))


@pytest.mark.usefixtures("_known_times")
def test_a_result_is_what_the_report_reads(experiment: Experiment, val: Split) -> None:
    found = read(measure(experiment, "cpu", val))
    assert (found.profile, found.model, found.hardware) == ("toy", "plain", "cpu")
    assert found.input_size == (40, 48)
    assert [cost.output_stride for cost in found.output_strides] == [16, 8]
    model = build_model("fcn", experiment.arguments, num_classes=6).eval()
    assert found.trained.parameters == sum(math.prod(p.shape) for p in model.parameters())
    with torch.inference_mode():
        assert found.trained.flops == count_flops(model, torch.zeros(1, 3, 40, 48))
    assert found.output_strides[1].flops > found.trained.flops
    for cost in found.output_strides:
        assert cost.latency_ms.model_dump() == {
            "p25": 1250,
            "p50": 1500,
            "p75": 1750,
            "p90": 1900,
            "p99": 1990,
            "samples": 2,
        }
        assert cost.relative_latency.p50 == 3
        assert 0 < cost.peak_memory_mib <= found.output_strides[1].peak_memory_mib
    assert found.images_per_second == {"1": 0.67, "2": 1.33}
    training = found.training
    assert training is not None
    assert (training.crop_size, training.batch_size) == ((32, 40), 2)
    assert (training.step_ms.p50, training.relative_step.p50) == (1500, 3)
    assert training.images_per_second == 1.33
    assert {"driver", "cudnn", "threads"} <= set(found.environment)


def test_output_strides_begin_with_the_trained_one(experiment: Experiment) -> None:
    aspp = experiment.model_copy(
        update={
            "architecture": "aspp",
            "arguments": ARGUMENTS | {"output_stride": 32, "atrous_rates": [1, 3]},
        }
    )
    found = list_output_strides(aspp)
    assert list(found) == [32, 16, 8]
    assert [arguments["atrous_rates"] for arguments in found.values()] == [[1, 3], [2, 6], [4, 12]]
    odd = aspp.model_copy(update={"arguments": aspp.arguments | {"output_stride": 8}})
    assert list(list_output_strides(odd)) == [8], "rates 1 and 3 cannot be halved"


def test_the_reference_is_a_resnet18_to_logits_of_the_images_size() -> None:
    network = build_reference_network()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 32)).shape == (1, 21, 64, 32)
    resnet18 = 11_689_512 - (512 * 1000 + 1000)
    assert sum(p.numel() for p in network.parameters()) == resnet18 + 512 * 21 + 21


@pytest.mark.parametrize(
    ("rates", "most", "expected"),
    [
        pytest.param({1: 10, 2: 18, 4: 30, 8: 31, 16: 99}, 64, [1, 2, 4, 8], id="no faster"),
        pytest.param({1: 10, 2: 5}, 64, [1, 2], id="slower at once"),
        pytest.param({1: 10, 2: 20, 4: 40}, 5, [1, 2, 4], id="most"),
        pytest.param({1: 10}, 1, [1], id="most is one"),
    ],
)
def test_batches_double_while_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, rates: dict[int, float], most: int, expected: list[int]
) -> None:
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: 0.0))
    assert search_throughput(rates.__getitem__, most) == {count: rates[count] for count in expected}


def test_the_search_ends_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def rate(count: int) -> float:
        nonlocal now
        now += 3
        return float(count)

    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: now))
    for seconds, expected in ((0, [1]), (3, [1]), (7, [1, 2, 4])):
        monkeypatch.setattr(speed, "THROUGHPUT_SECONDS", seconds)
        assert list(search_throughput(rate, 1024)) == expected


def test_the_search_ends_with_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "time", SimpleNamespace(monotonic=lambda: 0.0))

    def rate_up_to(most: int) -> Callable[[int], float]:
        def rate(count: int) -> float:
            if count > most:
                raise torch.cuda.OutOfMemoryError
            return float(count)

        return rate

    assert search_throughput(rate_up_to(4), 1024) == {1: 1, 2: 2, 4: 4}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        search_throughput(rate_up_to(0), 1024)


@pytest.mark.usefixtures("_known_times")
def test_a_batch_beyond_the_memory_has_no_training(
    experiment: Experiment, val: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(speed, "make_training_step", full)
    result = measure(experiment, "cpu", val)
    assert result["training"] is None
    assert read(result).training is None
