"""Tests of the device that a label means, and of the description of a machine."""

import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deeplab_bench.runtime.environment import describe_environment
from deeplab_bench.timing import machine
from deeplab_bench.timing.machine import (
    HardwareError,
    find_device,
    read_clocks_mhz,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("label", "name", "kind"),
    [
        ("cpu", "AMD EPYC", "cpu"),
        ("cpu_epyc", "AMD EPYC", "cpu"),
        ("gpu", "NVIDIA H100 80GB HBM3", "cuda"),
        ("h100", "NVIDIA H100 80GB HBM3", "cuda"),
        ("nvidia_h100.80gb", "NVIDIA H100 80GB HBM3", "cuda"),
    ],
)
def test_label_that_fits_the_device(
    label: str, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "get_device_name", lambda device: name)
    assert find_device(label).type == kind


@pytest.mark.parametrize(
    ("label", "name", "remedy"),
    [("cpu_xeon", "AMD EPYC", "use 'cpu'"), ("a100", "NVIDIA H100", "use 'gpu'")],
)
def test_label_of_another_device(
    label: str, name: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(machine, "get_device_name", lambda device: name)
    with pytest.raises(
        HardwareError, match=f"^run.hardware names '{label}', .* is '{name}': {remedy}"
    ):
        find_device(label)


@pytest.mark.parametrize("label", ["h100", "gpu", "old_cpu"])
def test_label_of_a_gpu_where_there_is_none(label: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HardwareError, match=f"run.hardware names '{label}', .* no GPU: use 'cpu'"):
        find_device(label)


def test_description_of_a_processor() -> None:
    found = describe_environment(CPU)
    assert {"device", "threads", "cpus", "torch", "cuda", "driver", "cudnn"} <= set(found)
    assert found["device"] and found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["driver"] is None and found["cudnn"] is None
    assert set(read_clocks_mhz(CPU)) == {"cpu", "gpu"} and read_clocks_mhz(CPU)["gpu"] is None


@pytest.mark.parametrize(("code", "driver", "clock"), [(0, "570.12", 1980.0), (6, None, None)])
def test_description_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, code: int, driver: str | None, clock: float | None
) -> None:
    answers = {"--query-gpu=driver_version": "570.12\n", "--query-gpu=clocks.sm": "1980\n"}

    def nvidia_smi(command: list[str], **_: Any) -> Any:
        assert command[:2] == ["nvidia-smi", "--id=GPU-1234"]
        return SimpleNamespace(returncode=code, stdout=answers[command[2]])

    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(subprocess, "run", nvidia_smi)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    properties = SimpleNamespace(uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert describe_environment(GPU)["driver"] == driver
    assert describe_environment(GPU)["device"] == "NVIDIA H100"
    assert read_clocks_mhz(GPU)["gpu"] == clock
