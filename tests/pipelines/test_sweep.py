"""Tests of stages side by side with DVC; the stages only write when and where they ran."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from stub_pipeline import (
    TRAIN,
    dvc,
    get_environment,
    list_cache,
    make_project,
    wait_for,
)

from deeplab_bench.runtime.source import DESCRIBED, describe_source
from deeplab_bench.settings.blocks import ParamsError
from deeplab_bench.settings.cluster import Cluster, Resources
from deeplab_bench.settings.process import Process
from deeplab_bench.settings.sweep import SweepParams, SweepProfile, SweepRun
from pipelines import repro
from pipelines.sweep import node
from pipelines.sweep.local import list_gpus
from pipelines.sweep.run_costs import RunCost, RunCosts
from pipelines.sweep.task import Ended, Needs, Task
from pipelines.sweep.tasks import StoreTasks, find_needs, open_tasks

pytestmark = pytest.mark.long(seconds=150)

ROOT = Path(__file__).resolve().parents[2]

REPRODUCE = """\
import os, signal, sys
from deeplab_bench.errors import UserError
from pipelines.sweep import driver
from pipelines.sweep.board import Board
from pipelines.sweep.local import LocalEngine, list_gpus
from pipelines.sweep.run_costs import RunCosts
from stub_pipeline import StubTasks
driver.WORTH = float(os.environ.get("WORTH", 20))
engine = LocalEngine(int(sys.argv[1]), list_gpus())
def interrupt_in(owner, name):
    # Press Ctrl-C at the end of a function that is given, or returns, what train@b has made.
    function = getattr(owner, name)
    def interrupted(*given):
        returned = function(*given)
        marks = ("Stage: 'train@b'", "Ended(name='train@b'")
        if any(mark in f"{given} {returned}" for mark in marks):
            os.kill(os.getpid(), signal.SIGINT)
        return returned
    setattr(owner, name, interrupted)
if "INTERRUPTED" in os.environ:
    owner, _, name = os.environ["INTERRUPTED"].partition(".")
    interrupt_in({"engine": engine, "driver": driver}[owner], name)
try:
    sys.exit(not driver.sweep(engine, StubTasks(), Board(RunCosts())))
except UserError as error:
    sys.exit(f"error: {error}")
"""
# A training waits until so many of them have begun.
BARRIER = """\
touch begun-$1
for try in $(seq 3000); do [ $(ls begun-* | wc -l) -ge {} ] && break; sleep 0.1; done
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path)
    return tmp_path


def run(
    project: Path, jobs: int, gpus: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REPRODUCE, str(jobs)],
        cwd=project,
        env=get_environment(gpus, **settings),
        capture_output=True,
        text=True,
    )


def trained(project: Path) -> list[tuple[str, str, float, float]]:
    """Read model, GPU, start and end of each training, in the order of their starts."""
    lines = [(project / name).read_text(encoding="utf-8") for name in "abc"]
    rows = [line.split() for line in lines]
    return sorted(
        ((model, gpu, float(start), float(end)) for model, gpu, start, end in rows),
        key=lambda row: row[2],
    )


def test_two_gpus_have_a_stage_each(project: Path) -> None:
    script = TRAIN.replace("sleep 1\n", BARRIER.format(2))
    (project / "train.sh").write_text(script, encoding="utf-8")
    done = run(project, jobs=4, gpus="5,6")
    assert done.returncode == 0, done.stdout + done.stderr
    (_, first, _, first_end), (_, second, second_start, second_end), (_, third, start, _) = trained(
        project
    )
    assert {first, second} == {"5", "6"}
    assert second_start < first_end
    assert third in {"5", "6"}
    assert start >= min(first_end, second_end)


def test_without_a_gpu_there_are_as_many_as_asked_for(project: Path) -> None:
    script = TRAIN.replace("sleep 1\n", BARRIER.format(3))
    (project / "train.sh").write_text(script, encoding="utf-8")
    assert run(project, jobs=3).returncode == 0
    rows = trained(project)
    assert max(start for _, _, start, _ in rows) < min(end for *_, end in rows)
    before = time.time()
    done = run(project, jobs=3)
    assert done.returncode == 0
    assert done.stdout == ""
    assert all(end < before for *_, end in trained(project))


def test_files_of_dvc_are_those_of_plain_repro(tmp_path: Path) -> None:
    """Check dvc.lock byte by byte and DVC's cache, after a first run and after a change."""
    # Times are outputs here, and differ: replace them.
    script = TRAIN.replace("$start $(date +%s.%N)", "1 2").replace(
        "sleep 1", "[ $1 != a ] || sleep 1"
    )
    folders = [tmp_path / "plain", tmp_path / "beside"]
    for source in ("0\n", "1\n"):
        for folder in folders:
            folder.mkdir(exist_ok=True)
            if source == "0\n":
                make_project(folder)
                (folder / "train.sh").write_text(script, encoding="utf-8")
            (folder / "source").write_text(source, encoding="utf-8")
        dvc(folders[0], "repro")
        done = run(folders[1], jobs=3)
        assert done.returncode == 0, done.stdout + done.stderr
        plain, beside = ((folder / "dvc.lock").read_text(encoding="utf-8") for folder in folders)
        assert beside == plain
        assert list_cache(folders[0]) == list_cache(folders[1])
    assert (folders[1] / "weights-a").read_text(encoding="utf-8") == "1\na\n"
    assert dvc(folders[1], "status") == "Data and pipelines are up to date.\n"


def test_a_result_of_before_is_taken_from_the_cache(project: Path) -> None:
    """Check the stage whose outputs are all in the cache, as `dvc repro` does."""
    assert run(project, jobs=2).returncode == 0
    (project / "source").write_text("1\n", encoding="utf-8")
    assert run(project, jobs=2).returncode == 0
    (project / "source").write_text("0\n", encoding="utf-8")
    shutil.rmtree(project / "logs")
    done = run(project, jobs=2)
    assert "evaluate@a: was in the cache" in done.stdout
    assert {path.name for path in (project / "logs").glob("*.log")} == {
        "resolve.log",
        "report.log",
        *(f"train@{model}.log" for model in "abc"),
    }
    assert (project / "score-a").read_text(encoding="utf-8") == "0\na\n"


@pytest.mark.parametrize("gpus", ["", "0,1"])
def test_a_failure_holds_up_what_needs_it_and_nothing_else(project: Path, gpus: str) -> None:
    done = run(project, jobs=2, gpus=gpus, FAILING="b")
    assert done.returncode == 1
    assert re.search(
        r"error: train@b: exited with 7 after [\d.]+ s. The end of logs/train@b.log:\nso it is\n",
        done.stderr,
    )
    assert "2 runs that need one that failed were not begun" in done.stderr
    assert not (project / "report").exists()
    said = dvc(project, "status")
    assert "train@b" in said
    for name in ("train@a", "train@c", "evaluate@a", "evaluate@c"):
        assert name not in said


def test_a_stage_that_the_system_killed_is_named(project: Path) -> None:
    done = run(project, jobs=2, KILLED="b")
    assert done.returncode == 1
    assert re.search(
        r"error: train@b: was ended by SIGKILL \(if nobody did that, memory ran out: .*\) after",
        done.stderr,
    )


def test_an_output_that_is_missing_is_a_failure(project: Path) -> None:
    done = run(project, jobs=2, SILENT="b")
    assert done.returncode == 1
    assert "error: train@b: output 'b' does not exist\n" in done.stderr
    assert "train@a" not in dvc(project, "status")


def test_a_dependency_that_is_missing_is_a_failure(project: Path) -> None:
    (project / "source").unlink()
    done = run(project, jobs=2)
    assert done.returncode == 1
    assert "error: resolve: source is missing: " in done.stderr


def test_an_interruption_keeps_what_is_finished(project: Path) -> None:
    with start(project, SLOW="c") as process:
        wait_for(project / "logs" / "train@c.log")
        for run in ("train@a", "train@b"):
            wait_for(project / "logs" / "sweep.jsonl", having=f'"event": "done", "run": "{run}"')
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
    said = dvc(project, "status")
    assert "train@a" not in said
    assert "train@b" not in said
    assert "train@c" in said


@pytest.mark.parametrize("inside", ["engine.poll", "driver.take_outputs", "driver.record"])
def test_an_interruption_comes_between_two_steps(project: Path, inside: str) -> None:
    """Check that a run which has just ended is recorded, wherever the signal comes."""
    done = run(project, jobs=2, INTERRUPTED=inside, SLOW="c", WORTH="0.1")
    assert done.returncode == 130
    assert done.stderr == "the runs under way are asked to end; press Ctrl-C again to end at once\n"
    said = dvc(project, "status")
    assert "train@b" not in said
    assert "train@c" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a project on a disk of 8 MiB, which only the superuser can."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a disk here")
    make_project(disk)
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


FILLER = "head -c 9000000 /dev/zero > filler 2>/dev/null"


def test_a_full_disk_is_named(small_disk: Path) -> None:
    """Check that a stage which the full disk ended says why, though its log could not."""
    script = (small_disk / "train.sh").read_text(encoding="utf-8")
    fill = f'[ "$1" = b ] && {FILLER}; sleep 1; echo "no room" || exit 9\n'
    (small_disk / "train.sh").write_text(fill + script, encoding="utf-8")
    with start(small_disk, stderr=subprocess.PIPE, WORTH="0.1") as process:
        said = read_until_it_waits(process)
        (small_disk / "filler").unlink()
        _, rest = process.communicate(timeout=600)
    assert process.returncode == 1
    assert b"error: train@b: exited with 9 after " in said
    assert b"the disk is full: 65536 more bytes are needed, 0 are free" in said
    assert b"Traceback" not in said + rest


def test_a_sweep_waits_for_room_on_a_full_disk(small_disk: Path) -> None:
    """Check that runs which ended well on a full disk are recorded as soon as there is room."""
    script = (small_disk / "train.sh").read_text(encoding="utf-8")
    fill = f'head -c 100000 /dev/zero >> weights-$1; [ "$1" = b ] && {FILLER}; true\n'
    (small_disk / "train.sh").write_text(script + fill, encoding="utf-8")
    with start(small_disk, stderr=subprocess.PIPE, WORTH="0.1") as process:
        read_until_it_waits(process)
        (small_disk / "filler").unlink()
        assert process.wait(600) == 0
    assert dvc(small_disk, "status") == "Data and pipelines are up to date.\n"


def read_until_it_waits(process: "subprocess.Popen[bytes]") -> bytes:
    """Read what a sweep says until it waits for room. DVC says it in its own words, too."""
    assert process.stderr is not None
    said = b""
    while not said.endswith(
        b"make room on the disk, and the sweep goes on; what is done is not lost\n"
    ):
        line = process.stderr.readline()
        assert line, said.decode()
        said += line
    return said


def test_a_second_interruption_ends_at_once(project: Path) -> None:
    """Check that nobody waits for a stage that does not end; what is recorded stays."""
    script = f"[ $1 = c ] && trap '' TERM INT && sleep 600\n{TRAIN}"
    (project / "train.sh").write_text(script, encoding="utf-8")
    with start(project, stderr=subprocess.PIPE, WORTH="0.1") as process:
        wait_for(project / "logs" / "train@c.log")
        wait_for(project / "dvc.lock", having="weights-b")
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        assert b"press Ctrl-C again" in process.stderr.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(300) != 0
    assert "train@b" not in dvc(project, "status")


def test_a_kill_keeps_what_is_recorded_by_the_way(project: Path) -> None:
    """Check what is recorded while a run is still running. The lock of DVC is free afterwards."""
    with start(project, SLOW="c", WORTH="0.1") as process:
        wait_for(project / "dvc.lock", having="weights-b")
        process.kill()
    (project / ".dvc" / "tmp" / "rwlock").write_text("", encoding="utf-8")  # cut off by the kill
    done = run(project, jobs=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train@b: " not in done.stdout
    assert "train@c: " in done.stdout


@pytest.mark.parametrize(("jobs", "left"), [(1, 0.77), (2, 0.3)])
def test_a_lock_file_that_was_cut_off_is_restored(project: Path, jobs: int, left: float) -> None:
    assert run(project, jobs=2).returncode == 0
    before = (project / "dvc.lock").read_bytes()
    os.truncate(project / "dvc.lock", int(left * len(before)))
    done = run(project, jobs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("warning: dvc.lock was damaged; its last copy is in place again") == 1
    assert done.stdout == ""
    assert (project / "dvc.lock").read_bytes() == before


def test_a_damaged_lock_file_without_a_copy_is_named(project: Path) -> None:
    (project / "dvc.lock").write_text("schema: '2.0'\nstages:\n  tra", encoding="utf-8")
    done = run(project, jobs=2)
    assert done.returncode == 1
    assert "error: dvc.lock is damaged: run `git checkout dvc.lock`" in done.stderr


def test_another_dvc_is_refused_meanwhile(project: Path) -> None:
    with start(project, SLOW="c") as process:
        wait_for(project / "logs" / "train@a.log")
        done = run(project, jobs=2)
        process.terminate()
    assert done.returncode == 1
    assert done.stderr.startswith("error: Unable to acquire lock.")


def start(
    project: Path, stderr: int = subprocess.DEVNULL, **settings: str
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", REPRODUCE, "2"],
        cwd=project,
        env=get_environment(**settings),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        # A shell lets its background processes ignore Ctrl-C, and theirs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize(("jobs", "gpus"), [(1, ""), (3, "2")])
def test_otherwise_it_is_one_after_the_other(project: Path, jobs: int, gpus: str) -> None:
    assert run(project, jobs, gpus).returncode == 0
    rows = trained(project)
    assert all(end <= start for (*_, end), (_, _, start, _) in pairwise(rows))


@pytest.mark.parametrize(
    ("threads", "gpus", "expected"),
    [(1, "", 6), (2, "", 3), (4, "", 1), (8, "", 1), (None, "", 1), (1, "0,1", 1)],
)
def test_cores_are_shared_by_the_threads_of_the_profile(
    threads: int | None, gpus: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    processes = [Process(threads=threads), Process(threads=1)]
    assert repro.count_default_jobs(processes, list_gpus()) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell shares of memory")
def test_memory_that_two_processes_share_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "MEMORY_SECONDS", 0.0)
    monkeypatch.delenv("DEEPLAB_BENCH_WARM", raising=False)
    script = "import os, time; mine = b'1' * (200 << 20); os.fork(); time.sleep(1.5)"
    task = Task("train@toy-fcn-0", (sys.executable, "-c", script), str(tmp_path), None)
    *_, ended = node.run(task)
    assert isinstance(ended, Ended)
    assert ended.status == 0
    assert ended.memory_mib is not None
    assert 200 <= ended.memory_mib < 300


def test_what_a_warm_process_needs_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "MEMORY_SECONDS", 0.0)
    monkeypatch.setenv("DEEPLAB_BENCH_WARM", "somewhere")
    *_, ended = node.run(Task("train@toy-fcn-0", ("sleep", "1"), str(tmp_path), None))
    assert isinstance(ended, Ended)
    assert ended.memory_mib is None


def test_a_stage_asks_for_what_its_profile_says_and_for_the_memory_of_before(
    tmp_path: Path,
) -> None:
    costs = RunCosts(tmp_path / "measured", tmp_path / "planned")
    costs.add("train@toy-fcn-0", RunCost(10, 1000))
    resources = Resources(gpus=1, cpus=4, memory_gib=2)
    profiles = {
        "toy": SweepProfile(process=Process(threads=3)),
        "full": SweepProfile(resources=resources),
    }
    params = SweepParams(run=SweepRun(profiles=("toy",)), profile=profiles)
    assert find_needs(params, costs, "train@toy-fcn-1") == Needs(cpus=3, expected_memory_mib=1250)
    assert find_needs(params, costs, "train@full-fcn-1") == Needs(4, 1, 2048)
    assert find_needs(params, costs, "report@toy") == Needs(cpus=3)


def test_a_file_that_a_shared_disk_shows_late_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Timer(0.8, (tmp_path / "weights").touch)
    late.start()
    task = Task("a", ("true",), str(tmp_path), None, inputs=("weights",), is_shared=True)
    assert node.find_problem(task) is None
    monkeypatch.setattr(node, "SHARED_SECONDS", 0.6)
    problem = node.find_problem(replace(task, inputs=("nothing",)))
    assert problem == f"lacks {tmp_path / 'nothing'}: does it see the driver's disk?"


def test_a_machine_with_other_data_refuses(tmp_path: Path) -> None:
    (tmp_path / "manifest").write_text("1", encoding="utf-8")
    (ended,) = node.run(Task("a", ("true",), str(tmp_path), None, data={"manifest": "0" * 64}))
    assert isinstance(ended, Ended)
    assert ended.refused
    assert "has other data" in ended.said


def test_a_stage_gets_its_pins_and_its_commit_by_a_remote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pins = Path("results") / "toy" / "settings" / "process.json"
    pins.parent.mkdir(parents=True)
    pins.write_text("{}", encoding="utf-8")
    params = SweepParams(run=SweepRun(profiles=("toy",)), profile={"toy": SweepProfile()})
    tasks = StoreTasks(params, None, RunCosts(), {"url": str(tmp_path / "remote")})
    run = SimpleNamespace(addressing="train@toy-fcn-0", cmd="true", deps=[], outs=[])
    task = tasks.make(run, Needs())
    tasks.store.fetch(tmp_path / "machine", task.shipped)
    assert (tmp_path / "machine" / pins).read_text(encoding="utf-8") == "{}"
    assert json.loads(task.environment[DESCRIBED]) == describe_source()


def test_a_remote_without_its_library_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc(project, "remote", "add", "storage", "s3://bucket/folder")
    monkeypatch.chdir(project)
    cluster = Cluster(files="storage", folder="/scratch")
    params = SweepParams(
        run=SweepRun(profiles=("toy",)), profile={"toy": SweepProfile()}, cluster=cluster
    )
    with pytest.raises(ParamsError, match=r"cluster\.files 'storage': .*(dvc\[s3\]|dvc-s3)"):
        open_tasks(params, None, RunCosts(), is_cluster=True)


def test_a_profile_must_say_how_many_cores_a_stage_has_on_a_cluster() -> None:
    profiles = {
        "threads": SweepProfile(process=Process(threads=1)),
        "cpus": SweepProfile(resources=Resources(cpus=4)),
        "neither": SweepProfile(),
    }
    run = SweepRun(profiles=("threads", "cpus"))
    repro.require_cores(SweepParams(run=run, profile=profiles))
    run = SweepRun(profiles=("threads", "neither"))
    with pytest.raises(ParamsError, match=r"set profile\.neither\.resources\.cpus"):
        repro.require_cores(SweepParams(run=run, profile=profiles))


def test_the_tail_of_a_log_has_the_last_state_of_a_bar(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(30)) + b"0 %\r50 %\r100 %\nend\n\n")
    assert node.read_tail(log) == [*(f"line {n}" for n in range(12, 30)), "100 %", "end"]


def test_a_duration_is_rounded_to_seconds() -> None:
    assert repro.format_duration(119.6) == "2 min 0 s"
    assert repro.format_duration(0.4) == "0 min 0 s"
