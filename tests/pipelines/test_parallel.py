"""Tests of stages side by side with DVC; the stages only write when and where they ran."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PIPELINE = """\
stages:
  resolve:
    cmd: echo resolved > resolved
    outs: [resolved: {cache: false}]
  train:
    matrix: {model: [a, b, c]}
    cmd: sh train.sh ${item.model}
    deps: [resolved]
    outs: ["${item.model}": {cache: false}]
  report:
    cmd: cat a b c > report
    deps: [a, b, c]
    outs: [report: {cache: false}]
"""
REPRODUCE = (
    "import sys; from pipelines.parallel import reproduce; sys.exit(reproduce(int(sys.argv[1])))"
)
# The GPU, and from when to when; b fails where it is told to.
TRAIN = """\
[ "$1" = "$FAILING" ] && exit 7
start=$(date +%s.%N)
sleep 2
echo "$1 ${CUDA_VISIBLE_DEVICES:-none} $start $(date +%s.%N)" > $1
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "train.sh").write_text(TRAIN, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def run(project: Path, jobs: int, gpus: str, failing: str = "") -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(
        [sys.executable, "-c", REPRODUCE, str(jobs)],
        cwd=project,
        env=os.environ | environment | {"CUDA_VISIBLE_DEVICES": gpus, "FAILING": failing},
        capture_output=True,
        text=True,
    )


def trained(project: Path) -> list[tuple[str, str, float, float]]:
    """Read model, GPU, start and end of each training, in the order of their starts."""
    lines = (project / "report").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines]
    return sorted(
        ((model, gpu, float(start), float(end)) for model, gpu, start, end in rows),
        key=lambda row: row[2],
    )


def test_two_gpus_have_a_stage_each(project: Path) -> None:
    done = run(project, jobs=4, gpus="5,6")
    assert done.returncode == 0, done.stdout + done.stderr
    (_, first, _, first_end), (_, second, second_start, second_end), (_, third, start, _) = trained(
        project
    )
    assert {first, second} == {"5", "6"}
    assert second_start < first_end
    assert third in {"5", "6"}
    assert start >= min(first_end, second_end)
    before = time.time()
    assert run(project, jobs=4, gpus="5,6").returncode == 0
    assert all(end < before for *_, end in trained(project))


def test_a_failure_is_the_end(project: Path) -> None:
    done = run(project, jobs=2, gpus="0,1", failing="b")
    assert done.returncode != 0
    assert "exited with 7" in done.stdout + done.stderr
    assert not (project / "report").exists()


@pytest.mark.parametrize(("jobs", "gpus"), [(1, "0,1"), (3, "2")])
def test_otherwise_it_is_one_after_the_other(project: Path, jobs: int, gpus: str) -> None:
    assert run(project, jobs, gpus).returncode == 0
    rows = trained(project)
    assert all(end <= start for (*_, end), (_, _, start, _) in pairwise(rows))
