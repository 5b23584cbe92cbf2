"""Tests of what a sweep shows: how long it still takes, from what runs have cost or will cost."""

import json
from pathlib import Path

import pytest

from pipelines.sweep import run_costs
from pipelines.sweep.board import EVENTS, Board
from pipelines.sweep.run_costs import RunCost, RunCosts
from pipelines.sweep.task import Ended, Progress, Running

TRAININGS = ("train@toy-fcn-0", "train@toy-fcn-1", "train@toy-aspp-0")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make_board(*names: str) -> Board:
    board = Board(RunCosts())
    board.begin(names)
    return board


def finish(board: Board, name: str, seconds: float, memory_mib: int | None = None) -> None:
    board.update(Running(name, "machine"))
    board.finish(name, Ended(name, "machine", 0, seconds, memory_mib=memory_mib))


def test_a_run_takes_as_long_as_before_or_as_runs_like_it() -> None:
    costs = RunCosts()
    assert costs.expect_seconds("train@toy-fcn-0") is None
    for name, seconds in (("fcn-0", 99), ("fcn-0", 10), ("fcn-1", 20), ("aspp-0", 60)):
        costs.add(f"train@toy-{name}", RunCost(seconds))
    expected = {"fcn-1": 20, "fcn-2": 15, "aspp-2": 60, "psp-0": 30}
    for name, seconds in expected.items():
        assert costs.expect_seconds(f"train@toy-{name}") == seconds
    assert costs.expect_seconds("evaluate@toy-plain-fcn-0") is None
    assert costs.expect_seconds("report@toy") is None


def test_a_plan_goes_before_other_models_and_behind_other_seeds() -> None:
    planned = {"train@toy-fcn-1": RunCost(100), "train@toy-aspp-0": RunCost(200)}
    run_costs.write(run_costs.PLANNED, planned)
    costs = RunCosts()
    assert costs.expect_seconds("train@toy-fcn-1") == 100
    costs.add("train@toy-fcn-0", RunCost(10))
    assert costs.expect_seconds("train@toy-fcn-1") == 10
    assert costs.expect_seconds("train@toy-aspp-0") == 200


def test_a_run_has_the_memory_of_before_or_the_most_of_runs_like_it() -> None:
    """Check that a run whose memory was not measured this time leaves what is known."""
    costs = RunCosts()
    assert costs.expect_memory_mib("train@toy-fcn-0") is None
    for name, memory in (("fcn-0", 500), ("fcn-1", 700), ("fcn-0", None), ("aspp-0", None)):
        costs.add(f"train@toy-{name}", RunCost(1.0, memory))
    for name, memory in (("fcn-0", 500), ("fcn-2", 700), ("aspp-0", 700)):
        assert costs.expect_memory_mib(f"train@toy-{name}") == memory


def test_costs_are_kept_for_the_next_sweep() -> None:
    board = make_board("train@toy-fcn-0")
    finish(board, "train@toy-fcn-0", 12.34, 512)
    board.end()
    costs = RunCosts()
    assert costs.expect_seconds("train@toy-fcn-0") == 12.3
    assert costs.expect_memory_mib("train@toy-fcn-0") == 512


@pytest.mark.parametrize("content", ["", "{", '{"train@toy-fcn-0": 12.0}', "[]"])
def test_a_damaged_file_counts_as_none(content: str) -> None:
    run_costs.MEASURED.parent.mkdir()
    run_costs.MEASURED.write_text(content, encoding="utf-8")
    assert RunCosts().expect_seconds("train@toy-fcn-0") is None


def test_the_time_left_is_shared_by_what_runs_at_once() -> None:
    run_costs.write(run_costs.PLANNED, {name: RunCost(600) for name in TRAININGS})
    board = make_board(*TRAININGS)
    assert board.describe_left() == "30 min left"
    for name in TRAININGS[:2]:
        progress = Progress(10, 100, "step", 300.0, {})
        board.update(Running(name, "machine", progress=progress))
    assert board.describe_left() == "10 min left"  # (300 + 300 + 600) / 2 seconds


def test_a_time_that_is_known_in_part_says_so() -> None:
    board = make_board(*TRAININGS, "report@toy")
    assert board.describe_left() == "time left unknown"
    finish(board, TRAININGS[0], 30.0)
    assert board.describe_left() == "at least 60 s left"


def test_little_that_is_known_says_nothing_of_the_whole() -> None:
    board = make_board("resolve@toy", *TRAININGS, "report@toy")
    finish(board, "resolve@toy", 3.0)
    board.costs.add("report@toy", RunCost(20.0))
    assert board.describe_left() == "time left unknown"


def test_a_run_that_waits_again_is_not_running() -> None:
    board = make_board("train@toy-fcn-0")
    board.update(Running("train@toy-fcn-0", "machine"))
    board.queue("train@toy-fcn-0")
    assert "0 running, 1 waiting" in board.summarise()
    last = json.loads(EVENTS.read_text(encoding="utf-8").splitlines()[-1])
    assert (last["event"], last["run"]) == ("queued", "train@toy-fcn-0")


def test_the_table_ends_with_what_failed() -> None:
    board = make_board(*TRAININGS)
    board.fail(TRAININGS[0], "a traceback\nMemoryError: no room\n")
    assert [str(line) for line in board.list_failures()] == [
        f"{TRAININGS[0]} failed: MemoryError: no room"
    ]


def test_events_are_lines_of_json() -> None:
    board = make_board("train@toy-fcn-0", "train@toy-aspp-0")
    finish(board, "train@toy-fcn-0", 12.0)
    board.fail("train@toy-aspp-0", "exited with 1")
    board.end()
    events = [json.loads(line) for line in EVENTS.read_text(encoding="utf-8").splitlines()]
    assert [event["event"] for event in events] == ["begin", "running", "done", "failed", "end"]
    assert events[2]["seconds"] == 12.0
    assert events[3]["said"] == "exited with 1"
    counts = {"done": 1, "running": 0, "waiting": 0, "failed": 1, "of": 2}
    assert events[4]["sweep"] == counts | {"seconds_left": 0}
