"""Tests of the description of the machine."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from deeplab_bench.report.phrases import describe_environments
from deeplab_bench.results.records import Environment
from deeplab_bench.runtime import pins
from deeplab_bench.runtime.environment import describe_cpu, describe_environment, get_device_name

CPU = torch.device("cpu")


def test_environment() -> None:
    found: dict[str, Any] = describe_environment(CPU)
    assert set(found) == {
        "device",
        "microarchitecture",
        "cpu_family",
        "cpu_model",
        "cpu_stepping",
        "microcode",
        "instruction_set",
        "determinism",
        "threads",
        "cpus",
        "python",
        "torch",
        "torchvision",
        "numpy",
        "pillow",
        "mkl",
        "onednn",
        "libc",
        "cuda",
        "cudnn",
        "driver",
    }
    assert found["device"] and found["cuda"] is None
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == torch.get_num_threads()
    assert found["onednn"].count(".") >= 1
    json.dumps(found)


@pytest.mark.parametrize(
    ("vendor", "family", "model", "name"),
    [
        ("AuthenticAMD", 23, 0x01, "Zen"),  # EPYC 7001, Naples
        ("AuthenticAMD", 23, 0x31, "Zen 2"),  # EPYC 7002, Rome
        ("AuthenticAMD", 25, 0x01, "Zen 3"),  # EPYC 7003, Milan
        ("AuthenticAMD", 25, 0x11, "Zen 4"),  # EPYC 9004, Genoa
        ("AuthenticAMD", 25, 0x50, "Zen 3"),  # Ryzen 5000, Cezanne
        ("AuthenticAMD", 25, 0x61, "Zen 4"),  # Ryzen 7000, Raphael
        ("AuthenticAMD", 26, 0x02, "Zen 5"),  # EPYC 9005, Turin
        ("GenuineIntel", 6, 0x8F, "Sapphire Rapids"),
        ("GenuineIntel", 6, 0x01, None),
        ("AuthenticAMD", 99, 0x01, None),
    ],
)
def test_processors_of_one_name_are_told_apart(
    vendor: str, family: int, model: int, name: str | None
) -> None:
    cpuinfo = {"vendor_id": vendor, "cpu family": str(family), "model": str(model)}
    found = describe_cpu(cpuinfo | {"stepping": "1", "microcode": "0xa1"})
    assert found == {
        "microarchitecture": name,
        "cpu_family": family,
        "cpu_model": model,
        "cpu_stepping": 1,
        "microcode": "0xa1",
    }


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "CPUINFO", tmp_path / "none")
    assert set(describe_cpu(pins.read_cpuinfo()).values()) == {None}
    assert get_device_name(CPU)


def test_a_caption_names_the_kind_of_processor() -> None:
    found: Environment = {"device": "AMD EPYC", "cpu_family": 25, "microcode": "0xa1", "threads": 2}
    kind: Environment = {"microarchitecture": "Zen 3", "instruction_set": "AVX2"}
    assert describe_environments([found | kind]) == "AMD EPYC (Zen 3, AVX2), threads 2"
    assert describe_environments([found]) == "AMD EPYC, threads 2"
