"""Tests of ``verify`` in a repository of its own with a tiny profile."""

import re
import sys
from pathlib import Path

import pytest
from test_pipeline import Repository

MAKE = """\
from pipelines import download, evaluate, prepare, resolve, train
for stage in (resolve, download, prepare):
    stage.main("miniature")
for model in ("fcn", "aspp"):
    train.main("miniature", model, 0)
    evaluate.main("miniature", "plain", model, 0)
"""


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a repository with committed results."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.python("-c", MAKE)
    commit(repository)
    return repository


def commit(repository: Repository) -> None:
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("add", "--all"), (*author, "commit", "--quiet", "--message", "results")):
        done = repository.run("git", *command)
        assert done.returncode == 0, done.stderr


def verify(repository: Repository, *arguments: str) -> tuple[int, str, str]:
    done = repository.run(sys.executable, "-m", "deeplab_bench", "verify", *arguments)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.timeout(600)
def test_identical_then_different(committed: Repository) -> None:
    """Check a fresh commit, and one whose learning rate is not that of its results."""
    before = committed.run("git", "status", "--porcelain", "--ignored").stdout
    status, out, err = verify(committed, "--models", "aspp")
    assert status == 0, err
    assert re.search(r"^miniature aspp 0  +identical  +[\d.]+  +[\d.]+$", out, re.M)
    assert "All runs are identical" in out
    assert re.findall(r"Running (\w+)@", err) == [
        *("resolve", "download", "prepare", "train", "evaluate")
    ]
    assert committed.run("git", "status", "--porcelain", "--ignored").stdout == before

    committed.edit("base_lr: 0.05", "base_lr: 0.06")
    commit(committed)
    committed.edit("base_lr: 0.06", "base_lr: 0.05")
    status, out, err = verify(committed, "--models", "aspp")
    assert status == 1, err
    assert re.search(r"^miniature aspp 0  +different ", out, re.M)
    assert "miniature aspp 0: iteration 1: backward pass or optimiser, first seen in class" in out
    assert "made with other settings than HEAD has" in out
    assert "without the changes to params.yaml" in out


def test_mistakes_are_told_before_any_work(committed: Repository) -> None:
    for arguments, message in (
        (("minature",), "PROFILES: 'minature' is not defined"),
        (("--models", "asp"), "--models: 'asp' is not defined; the nearest valid one is 'aspp'"),
        (("--seed", "3"), "results/miniature/runs/evaluate/plain/aspp-3.json is missing"),
    ):
        status, out, err = verify(committed, *arguments)
        assert (status, out) == (1, "")
        assert message in err
        assert "Running" not in err and err.count("\n") == 1


def test_no_repository(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    status, _, err = verify(repository)
    assert status == 1
    assert err.startswith("error: ") and err.count("\n") == 1
