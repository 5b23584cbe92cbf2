"""A repository of its own with a pipeline of stubs, for tests of the driver of a sweep."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipelines.sweep.task import Ended, Needs, Task

ROOT = Path(__file__).resolve().parents[1]

PIPELINE = """\
stages:
  resolve:
    cmd: cp source resolved
    deps: [source]
    outs: [resolved: {cache: false}]
  train:
    matrix: {model: [a, b, c]}
    cmd: sh train.sh ${item.model}
    deps: [resolved, source]
    outs: ["${item.model}": {cache: false}, "weights-${item.model}"]
  evaluate:
    matrix: {model: [a, b, c]}
    cmd: cp weights-${item.model} score-${item.model}
    deps: ["weights-${item.model}"]
    outs: ["score-${item.model}"]
  report:
    cmd: cat a b c > report
    deps: [a, b, c]
    outs: [report: {cache: false}]
"""
# The GPU, and from when to when; b fails where it is told to. Outputs of earlier runs must be gone.
TRAIN = """\
[ "$1" = "$FAILING" ] && echo "so it is" && exit 7
[ "$1" = "$SILENT" ] && exit 0
[ "$1" = "$KILLED" ] && kill -KILL $$
[ -e "weights-$1" ] && echo "weights-$1 is still here" && exit 8
start=$(date +%s.%N)
[ "$1" = "$SLOW" ] && sleep 600
sleep 1
echo "$1 ${CUDA_VISIBLE_DEVICES:-none} $start $(date +%s.%N)" > $1
cat source > weights-$1
echo $1 >> weights-$1
"""


class StubTasks:
    """Tasks of the stubs, for a driver in the current folder; they ask for nothing."""

    def find_needs(self, run: Any) -> Needs:
        return Needs()

    def make(self, run: Any, needs: Needs) -> Task:
        command, outputs = ("sh", "-c", f"exec {run.cmd}"), tuple(out.def_path for out in run.outs)
        return Task(run.addressing, command, str(Path.cwd()), None, outputs=outputs)

    def collect(self, task: Task, ended: Ended) -> None:
        """Leave the outputs where they are: in the folder of the driver."""


def make_project(folder: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    (folder / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (folder / "train.sh").write_text(TRAIN, encoding="utf-8")
    (folder / "source").write_text("0\n", encoding="utf-8")
    (folder / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copy(ROOT / ".dvc" / name, folder / ".dvc")


def get_environment(gpus: str = "", **settings: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    imported = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    common = {"PATH": path, "PYTHONPATH": imported, "DVC_NO_ANALYTICS": "1"}
    return os.environ | common | {"CUDA_VISIBLE_DEVICES": gpus} | settings


def dvc(project: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=project, env=get_environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def list_cache(project: Path) -> set[Path]:
    cache = project / ".dvc" / "cache"
    return {path.relative_to(cache) for path in cache.rglob("*") if path.is_file()}


def wait_for(path: Path, having: str = "") -> None:
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if path.exists() and having in path.read_text(encoding="utf-8"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} does not have {having!r}")
