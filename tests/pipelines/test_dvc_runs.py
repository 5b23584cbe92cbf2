"""Tests of the calls of DVC, in a repository of stubs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_pipeline import dvc, make_project

from pipelines.dvc_runs import digest_inputs, has_outputs, locked_repository
from pipelines.sweep.store import digest_file


@pytest.fixture
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    dvc(tmp_path, "repro", "resolve")
    yield


def find(repo: Any, name: str) -> Any:
    return next(run for run in repo.index.stages if run.addressing == name)


@pytest.mark.usefixtures("_project")
def test_the_digest_of_a_run_changes_with_its_inputs_alone() -> None:
    digests = []
    for change in (lambda: None, lambda: None, lambda: Path("source").write_text("1\n")):
        change()
        with locked_repository() as repo:
            digests.append([digest_inputs(find(repo, f"train@{model}")) for model in "ab"])
    first, again, changed = digests
    assert first == again
    assert not set(first) & set(changed)
    assert first[0] != first[1]


@pytest.mark.usefixtures("_project")
def test_outputs_are_those_that_were_made() -> None:
    made = {}
    for path in map(Path, ("a", "weights-a")):
        path.write_text("so it is", encoding="utf-8")
        made[str(path)] = digest_file(path)
    with locked_repository() as repo:
        run = find(repo, "train@a")
        assert has_outputs(run, made)
        assert not has_outputs(run, {"a": made["a"]})
        Path("a").write_text("not so", encoding="utf-8")
        assert not has_outputs(run, made)
        Path("a").unlink()
        assert not has_outputs(run, made)
