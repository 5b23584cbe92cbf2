"""Tests of the part of ``dvc repro`` that is work. ``dvc repro`` itself does not run here."""

import pytest

from studies import repro_overhead


def test_work_is_the_time_that_stages_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    timing = {"training_seconds": 10.0, "evaluation_seconds": 2.0, "environment": {}}
    crf = {"evaluation_seconds": 3.0, "search_seconds": 1.0, "workers": 2}
    monkeypatch.setattr(
        repro_overhead, "read_json", lambda path: crf if "crf" in path.parts else timing
    )
    run = type("Run", (), {"profiles": ["a"], "models": ["x", "y"], "seeds": [0, 1], "crf": ["y"]})
    assert repro_overhead.sum_work_seconds(type("Params", (), {"run": run})()) == 4 * 12 + 2 * 4


def test_the_message_states_both_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(repro_overhead, "load_params", lambda: None)
    monkeypatch.setattr(repro_overhead, "time_repro", lambda params, cold: 80.0)
    monkeypatch.setattr("sys.argv", ["repro_overhead"])
    monkeypatch.setattr(repro_overhead, "sum_work_seconds", lambda params: 60.0)
    repro_overhead.main()
    printed = capsys.readouterr().out
    assert printed.startswith("dvc repro took 80 s. ") and "60 s of them (75%)" in printed
