"""Tests that a process is pinned before numpy and torch are imported."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import read_settings, write_settings
from deeplab_bench.runtime import pins
from deeplab_bench.runtime.device import computes_bfloat16, make_deterministic
from deeplab_bench.settings.base import Settings, SettingsError
from deeplab_bench.settings.process import Process

ROOT = Path(__file__).resolve().parents[2]
FILES = ProfileFiles("toy")
# A stage that says how its process computes.
STAGE = """
def main(profile: str) -> None:
    import os, torch
    from deeplab_bench.runtime.environment import describe_environment
    print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    print(describe_environment(torch.device("cpu"))["determinism"], os.environ.get("MKL_CBWR"))
"""
START = """
import sys, types
stage = types.ModuleType("pipelines.report")
exec(sys.argv.pop(1), stage.__dict__)
sys.modules["pipelines.report"] = stage
from deeplab_bench.__main__ import main
main()
"""
needs_avx2 = pytest.mark.skipif(
    not pins.can_pin_instructions(), reason="there is nothing to pin without AVX2"
)


def start_stage(folder: Path, process: Process | None) -> list[str]:
    """Start a stage under the settings of a profile's process; return the words that it prints."""
    if process is not None:
        path = folder / FILES.process_settings
        path.parent.mkdir(parents=True)
        path.write_text(process.model_dump_json(), encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if k not in pins.get_pins()}
    return subprocess.run(
        [sys.executable, "-c", START, STAGE, "report", "toy"],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


@needs_avx2
def test_a_portable_stage_uses_avx2_and_its_number_of_threads(tmp_path: Path) -> None:
    process = Process(determinism="portable", threads=1)
    assert start_stage(tmp_path, process) == ["AVX2", "1", "portable", "COMPATIBLE"]


@pytest.mark.parametrize("process", [Process(), None])
def test_another_stage_is_not_pinned(tmp_path: Path, process: Process | None) -> None:
    capability, threads, determinism, branch = start_stage(tmp_path, process)
    assert (threads, determinism, branch) == ("2", "strict", "None")
    assert (
        capability
        == subprocess.run(
            [sys.executable, "-c", "import torch; print(torch.backends.cpu.get_cpu_capability())"],
            env={k: v for k, v in os.environ.items() if k not in pins.get_pins()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )


def test_the_tests_are_pinned() -> None:
    assert pins.find_missing_pin("portable", 1) is None
    assert torch.get_num_threads() == 1


@needs_avx2
def test_an_unpinned_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    process = Process(determinism="portable", threads=1)
    write_settings(FILES, "report", settings=Settings(), process=process)
    read_settings(FILES, "report", schema=Settings)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    with pytest.raises(SettingsError, match=r"^report needs ONEDNN_MAX_CPU_ISA=AVX2 from .*repro"):
        read_settings(FILES, "report", schema=Settings)


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "sse2 avx avx2 fma", True),
        ("x86_64", "sse2 avx", False),
        ("x86_64", "avx2", False),
        ("aarch64", "avx2 fma", False),
    ],
)
def test_which_processors_can_be_pinned(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, flags: str, expected: bool
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: {flags}\n\nflags\t\t: avx2 fma\n", encoding="utf-8")
    monkeypatch.setattr(pins, "CPUINFO", cpuinfo)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert pins.can_pin_instructions() is expected
    listed = pins.list_pins("portable", 3)
    assert ("ATEN_CPU_CAPABILITY" in listed) is expected
    assert listed["OMP_NUM_THREADS"] == listed["MKL_NUM_THREADS"] == "3"


def test_portable_needs_a_number_of_threads() -> None:
    with pytest.raises(ValueError, match="needs threads"):
        Process(determinism="portable")


@needs_avx2
def test_avx2_has_no_bfloat16() -> None:
    assert not computes_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize(("determinism", "fixed"), [("native", False), ("strict", True)])
def test_strict_has_no_tf32(monkeypatch: pytest.MonkeyPatch, determinism: str, fixed: bool) -> None:
    """Check the flags as on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(pins.DETERMINISM, determinism)
    make_deterministic(0)
    assert torch.are_deterministic_algorithms_enabled() is fixed
    assert torch.backends.cudnn.allow_tf32 is not fixed
    assert torch.backends.cuda.matmul.allow_tf32 is not fixed
    assert torch.backends.cudnn.benchmark is not fixed


def test_the_file_is_what_resolve_writes() -> None:
    """Check on the committed profile, whose results claim to be portable."""
    written = json.loads((ROOT / ProfileFiles("quick").process_settings).read_text("utf-8"))
    assert written == {"determinism": "portable", "threads": 1}
