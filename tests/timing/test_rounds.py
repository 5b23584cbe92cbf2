"""Times are taken in turn and summed up right; how long anything takes is not tested."""

import itertools
import shutil
import statistics
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deeplab_bench.timing import rounds as timing
from deeplab_bench.timing.rounds import (
    clocks_mhz,
    fingerprint,
    in_rounds,
    quantiles,
    ratios,
    rotating,
    timed,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Clock:
    """Stands still but for the work that ``taking`` makes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: list[str] = []
        clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter=lambda: self.now)
        monkeypatch.setattr(timing, "time", clock)

    def taking(self, name: str, *seconds: float) -> timing.Work:
        """Work that takes these seconds in turn."""
        turns = itertools.cycle(seconds)

        def work() -> None:
            self.done.append(name)
            self.now += next(turns)

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("warm_up", "seconds", "least", "expected"),
    [(2, 5, 3, [3, 4, 5]), (1, 0, 2, [2, 3]), (0, 4, 1, [1, 2, 3])],
)
def test_rounds_of_the_warm_up_do_not_count(
    clock: Clock, warm_up: int, seconds: float, least: int, expected: list[float]
) -> None:
    works = {"a": clock.taking("a", 1, 2, 3, 4, 5)}
    assert in_rounds(works, CPU, seconds=seconds, least=least, warm_up=warm_up)["a"] == expected


def test_every_work_has_its_turn_in_both_orders(clock: Clock) -> None:
    works = {"a": clock.taking("a", 1), "b": clock.taking("b", 2, 3)}
    assert in_rounds(works, CPU, seconds=0, least=3, warm_up=1) == {"a": [1, 1, 1], "b": [3, 2, 3]}
    assert "".join(clock.done) == "ababbaab"


def test_a_gpu_is_timed_by_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("event")

        def elapsed_time(self, end: Any) -> float:
            return 250.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append(f"wait for {device}"))
    assert timed(lambda: log.append("work"), GPU) == 0.25
    assert log == ["wait for cuda", "event", "work", "event", "wait for cuda"]


def test_inputs_take_turns() -> None:
    seen: list[float] = []
    work = rotating(lambda x: seen.append(x.item()), [torch.tensor(v) for v in (1.0, 2.0, 3.0)])
    for _ in range(5):
        work()
    assert seen == [1, 2, 3, 1, 2]


def test_quantiles_are_those_of_the_standard_library() -> None:
    samples = [0.31, 0.12, 0.95, 0.44, 0.44, 0.08, 0.71]
    hundredths = statistics.quantiles(samples, n=100, method="inclusive")
    found = quantiles(samples, 50, 90, 99)
    assert found == pytest.approx({f"p{p}": hundredths[p - 1] for p in (50, 90, 99)})
    assert quantiles([5.0], 50, 99) == {"p50": 5.0, "p99": 5.0}


def test_ratios_are_taken_round_by_round() -> None:
    """A machine that slows down to a third changes no ratio."""
    reference = [1.0, 1.0, 3.0, 3.0, 2.0]
    assert ratios([2 * t for t in reference], reference) == {"p25": 2, "p50": 2, "p75": 2}
    assert ratios([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) == {"p25": 2, "p50": 3, "p75": 4}


def test_fingerprint_of_a_processor() -> None:
    found = fingerprint(CPU)
    assert {"device", "threads", "cpus", "torch", "cuda", "driver", "cudnn"} <= set(found)
    assert found["device"] and found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["driver"] is None and found["cudnn"] is None
    assert set(clocks_mhz(CPU)) == {"cpu", "gpu"} and clocks_mhz(CPU)["gpu"] is None


@pytest.mark.parametrize(("code", "driver", "clock"), [(0, "570.12", 1980.0), (6, None, None)])
def test_fingerprint_of_a_gpu(
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
    assert fingerprint(GPU)["driver"] == driver
    assert fingerprint(GPU)["device"] == "NVIDIA H100"
    assert clocks_mhz(GPU)["gpu"] == clock
