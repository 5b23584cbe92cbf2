"""Costs of a sweep of many runs: ``python -m studies.sweep_scale 100 1000 10000``.

The stages are stubs, in a repository of their own: half of them train, half evaluate. It measures
what DVC takes to read all stages, to find that nothing is due, and to write its lock file; and the
driver on a Ray of this machine, where 1 % of the commands kill their worker.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from deeplab_bench.settings.cluster import Cluster
from pipelines.dvc_runs import locked_repository, record
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.task import Needs
from pipelines.sweep.tasks import Tasks

SEEDS = 5
LOST = 0.01
PIPELINE = """\
stages:
  train:
    matrix: {{model: [{models}], seed: [{seeds}]}}
    cmd: sh run.sh train ${{item.model}}-${{item.seed}}
    deps: [settings.json]
    outs: ["runs/train-${{item.model}}-${{item.seed}}": {{cache: false}}]
  evaluate:
    matrix: {{model: [{models}], seed: [{seeds}]}}
    cmd: sh run.sh evaluate ${{item.model}}-${{item.seed}}
    deps: ["runs/train-${{item.model}}-${{item.seed}}"]
    outs: ["runs/evaluate-${{item.model}}-${{item.seed}}": {{cache: false}}]
"""
# The first time, a command that is to be lost kills the worker that has started it.
RUN = """\
[ -e "lost/$1-$2" ] && rm "lost/$1-$2" && kill -KILL $PPID && exit 1
echo "$1 $2" > "runs/$1-$2"
"""


class StubTasks(Tasks):
    """Tasks of stages that ask for nothing."""

    def __init__(self) -> None:
        self.code, self.is_shared = None, False

    def find_needs(self, run: Any) -> Needs:
        return Needs()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=int, nargs="+", help="how many runs there are")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.runs[0])))
        return
    # Each in a process of its own, so that the memory is that of this number.
    command = [sys.executable, "-m", "studies.sweep_scale", "--one"]
    rows = []
    for runs in arguments.runs:
        done = subprocess.run([*command, str(runs)], stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".4g"), flush=True)


def measure(runs: int) -> dict[str, float]:
    """Measure the costs of a number of runs; times are in seconds but for those of one run."""
    import ray  # it is optional

    from pipelines.sweep.ray_engine import RayEngine

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_repository(runs)
        engine = RayEngine(Cluster(), None, len(os.sched_getaffinity(0)))
        try:
            board = Board(RunCosts())
            seconds = time_once(lambda: sweep(engine, StubTasks(), board))
        finally:
            engine.close()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        left = len(list(Path("lost").iterdir()))
        assert (board.done, left) == (runs, 0), "a run is not done"
        with locked_repository() as repo:
            reading = time_once(lambda: repo.index.graph)
            nothing = time_once(lambda: [run for run in repo.index.stages if run.status()])
            writing = time_once(lambda: record(repo.index.stages[:1]))
        return {
            "runs": runs,
            "driver_ms_per_run": 1000 * seconds / runs,
            "driver_mib": memory,
            "lost": board.lost,
            "read_s": reading,
            "no_op_s": nothing,
            "write_lock_s": writing,
            "ray": float(ray.__version__.rpartition(".")[0]),
        }


def make_repository(runs: int) -> None:
    """Make a repository of stubs in the current folder."""
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, check=True)
    models = [f"m{index}" for index in range(runs // (2 * SEEDS))]
    seeds = ", ".join(map(str, range(SEEDS)))
    text = PIPELINE.format(models=", ".join(models), seeds=seeds)
    Path("dvc.yaml").write_text(text, encoding="utf-8")
    Path("run.sh").write_text(RUN, encoding="utf-8")
    Path("settings.json").write_text("{}\n", encoding="utf-8")
    for name in ("runs", "lost"):
        Path(name).mkdir()
    names = [
        f"{s}-{m}-{seed}" for s in ("train", "evaluate") for m in models for seed in range(SEEDS)
    ]
    for name in random.Random(0).sample(names, round(LOST * len(names))):
        (Path("lost") / name).touch()


def time_once(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
