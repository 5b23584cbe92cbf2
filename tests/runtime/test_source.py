"""Tests of the record of commit, edits and lock file."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from deeplab_bench.runtime.source import DESCRIBED, GitError, ask_git, describe_source, run_git


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "deeplab_bench").mkdir()
    (tmp_path / "deeplab_bench" / "fcn.py").write_text("rate = 1\n")
    (tmp_path / "requirements.lock").write_text("torch==2\n")
    (tmp_path / "README.md").write_text("text\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2017-06-17T23:30:00-11:00")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_a_clean_commit(repository: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the date too: it is the committer's, not that of this machine's clock or time zone."""
    monkeypatch.setenv("TZ", zone)
    assert describe_source(repository) == {
        "commit": git(repository, "rev-parse", "HEAD"),
        "date": "2017-06-17",
        "dirty": False,
        "lock_sha256": sha256(b"torch==2\n").hexdigest(),
    }


@pytest.mark.parametrize("name", ["deeplab_bench/fcn.py", "deeplab_bench/new.py", "params.yaml"])
def test_edits_and_new_files_of_the_source_count(repository: Path, name: str) -> None:
    (repository / name).write_text("rate = 2\n")
    assert describe_source(repository)["dirty"] is True


def test_edits_of_results_and_documents_do_not_count(repository: Path) -> None:
    (repository / "README.md").write_text("other text\n")
    (repository / "results").mkdir()
    (repository / "results" / "accuracy.csv").write_text("model\n")
    assert describe_source(repository)["dirty"] is False


def test_the_commit_of_another_repository_around_it_does_not_count(repository: Path) -> None:
    inner = repository / "venv"
    inner.mkdir()
    assert set(describe_source(inner).values()) == {None}


def test_a_machine_without_git_takes_the_description_of_another(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = describe_source(repository)
    monkeypatch.setenv(DESCRIBED, json.dumps(described))
    assert describe_source(repository / "deeplab_bench") == described


def test_no_repository_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_source(tmp_path)["commit"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_git("version") is None
    with pytest.raises(GitError, match="git is not installed: install it"):
        run_git("version")


def test_what_git_refuses(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="`git show v9` failed: fatal: "):
        run_git("show", "v9", root=tmp_path)
    assert ask_git("show", "v9", root=tmp_path) is None
