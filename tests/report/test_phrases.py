"""Tests of phrases that name commits."""

import subprocess
from pathlib import Path

import pytest

from deeplab_bench.report.phrases import list_commits
from deeplab_bench.results.records import NO_SOURCE, Source


def make(commit: str, dirty: bool | None = False, date: str | None = None) -> Source:
    return Source(commit=commit * 40, date=date, dirty=dirty, lock_sha256=None)


def test_each_commit_is_listed_once() -> None:
    sources = [make("a"), make("b", dirty=True), make("c", date="2017-06-17"), make("b"), make("a")]
    assert list_commits(sources) == (
        f"commits {'a' * 12}, {'c' * 12} of 2017-06-17 and {'b' * 12} (edited)"
    )
    assert list_commits([make("a", dirty=True), make("b", dirty=True)]) == (
        f"commits {'a' * 12} (edited) and {'b' * 12} (edited)"
    )
    assert list_commits([NO_SOURCE, make("a", dirty=None)]) == (
        f"commit {'a' * 12}, and an unknown commit"
    )
    assert list_commits([NO_SOURCE]) == "an unknown commit"


def test_git_knows_the_day_of_older_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2017-06-17T12:00:00+0000")
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "First"]):
        subprocess.run(["git", *command], check=True)
    asked = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    source = Source(commit=commit, dirty=False, lock_sha256=None)
    assert list_commits([source]) == f"commit {commit[:12]} of 2017-06-17"
