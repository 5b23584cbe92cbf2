"""Tests of rounds, the stopwatch and statistics of times. None depends on real durations."""

import itertools
import statistics
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deeplab_bench.timing import rounds
from deeplab_bench.timing.rounds import (
    Work,
    compute_quantiles,
    compute_ratios,
    rotate_inputs,
    time_in_rounds,
    time_once,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Clock:
    """A clock that only work made by ``taking`` moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: list[str] = []
        clock = SimpleNamespace(monotonic=lambda: self.now, perf_counter=lambda: self.now)
        monkeypatch.setattr(rounds, "time", clock)

    def taking(self, name: str, *seconds: float) -> Work:
        """Make work that takes these seconds in turn."""
        turns = itertools.cycle(seconds)

        def work() -> None:
            self.done.append(name)
            self.now += next(turns)

        return work


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("warm_up", "seconds", "min_rounds", "expected"),
    [(2, 5, 3, [3, 4, 5]), (1, 0, 2, [2, 3]), (0, 4, 1, [1, 2, 3])],
)
def test_rounds_of_the_warm_up_do_not_count(
    clock: Clock, warm_up: int, seconds: float, min_rounds: int, expected: list[float]
) -> None:
    works = {"a": clock.taking("a", 1, 2, 3, 4, 5)}
    assert (
        time_in_rounds(works, CPU, seconds=seconds, min_rounds=min_rounds, warm_up=warm_up)["a"]
        == expected
    )


def test_every_work_has_its_turn_in_both_orders(clock: Clock) -> None:
    works = {"a": clock.taking("a", 1), "b": clock.taking("b", 2, 3)}
    assert time_in_rounds(works, CPU, seconds=0, min_rounds=3, warm_up=1) == {
        "a": [1, 1, 1],
        "b": [3, 2, 3],
    }
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
    assert time_once(lambda: log.append("work"), GPU) == 0.25
    assert log == ["wait for cuda", "event", "work", "event", "wait for cuda"]


def test_inputs_take_turns() -> None:
    seen: list[float] = []
    work = rotate_inputs(
        lambda x: seen.append(x.item()), [torch.tensor(v) for v in (1.0, 2.0, 3.0)]
    )
    for _ in range(5):
        work()
    assert seen == [1, 2, 3, 1, 2]


def test_quantiles_are_those_of_the_standard_library() -> None:
    samples = [0.31, 0.12, 0.95, 0.44, 0.44, 0.08, 0.71]
    hundredths = statistics.quantiles(samples, n=100, method="inclusive")
    found = compute_quantiles(samples, 50, 90, 99)
    assert found == pytest.approx({f"p{p}": hundredths[p - 1] for p in (50, 90, 99)})
    assert compute_quantiles([5.0], 50, 99) == {"p50": 5.0, "p99": 5.0}


def test_ratios_are_taken_round_by_round() -> None:
    """Check that ratios do not change if the machine slows down to a third."""
    reference = [1.0, 1.0, 3.0, 3.0, 2.0]
    assert compute_ratios([2 * t for t in reference], reference) == {"p25": 2, "p50": 2, "p75": 2}
    assert compute_ratios([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]) == {"p25": 2, "p50": 3, "p75": 4}
