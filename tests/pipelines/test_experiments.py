"""Tests of DVC's experiments on a tiny profile: beside the workspace, queued, and killed."""

import sys
import time

import psutil
import pytest
from miniature import Repository

from pipelines.dvc_runs import is_lock_file_whole

pytestmark = pytest.mark.long(seconds=70)

BASE_LR = "profile.miniature.training.base_lr"
EVALUATED = "evaluate@miniature-plain-fcn-0"


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Make a repository with committed results of one model."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.edit("models: [fcn, aspp]", "models: [fcn]")
    repository.edit("hardware: [cpu]", "hardware: []")
    repository.repro()
    repository.commit()
    return repository


def read_evaluation(repository: Repository, revision: str) -> str:
    name = "results/miniature/runs/evaluate/plain/fcn-0.json"
    done = repository.run("git", "show", f"{revision}:{name}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_experiments_leave_the_workspace_alone(committed: Repository) -> None:
    """Check one beside the workspace, and one of the queue, which leaves the report out."""
    committed.dvc("exp", "run", "--temp", "--name", "beside", "-S", f"{BASE_LR}=0.01")
    committed.dvc("exp", "run", "--queue", "--name", "queued", "-S", f"{BASE_LR}=0.02", EVALUATED)
    committed.dvc("exp", "run", "--run-all")
    assert committed.run("git", "status", "--porcelain").stdout == ""
    names = committed.dvc("exp", "list", "--name-only").split()
    assert sorted(names) == ["beside", "queued"]
    commits = committed.dvc("exp", "list", "--sha-only").split()
    records = {read_evaluation(committed, commit) for commit in [*commits, "HEAD"]}
    assert len(records) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, stages outlive a killed DVC")
def test_after_a_killed_experiment_everything_is_as_before(
    committed: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that what was committed comes back, though DVC was killed while a stage ran."""
    started = committed.start(sys.executable, "-m", "dvc", "exp", "run", "-S", f"{BASE_LR}=0.03")
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("Running stage 'train@"):
            break
    time.sleep(1)
    family = psutil.Process(started.pid).children(recursive=True)
    started.kill()
    started.communicate()
    assert not psutil.wait_procs(family, timeout=600)[1]
    monkeypatch.chdir(committed.root)
    assert is_lock_file_whole()

    committed.run("git", "checkout", "HEAD", "params.yaml")  # DVC has staged it
    committed.repro()
    values = [f"results/miniature/{name}" for name in ("metrics.json", "fingerprints")]
    assert committed.run("git", "diff", "HEAD", "--", "params.yaml", *values).stdout == ""
    assert "up to date" in committed.dvc("status")
