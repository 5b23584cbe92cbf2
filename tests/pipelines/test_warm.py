"""Tests that a warm process runs stages as they would run by themselves."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import warm
from pipelines.stages import STAGES

pytestmark = pytest.mark.long(seconds=40)

ROOT = Path(__file__).resolve().parents[2]

# Stages that say where and how they run.
RUN = """
def run(command):
    import os, sys, time
    name, *arguments = command
    if name == "train":
        print("out", os.getcwd(), *arguments, sys.stdin.readline().strip(), flush=True)
        print("err", file=sys.stderr)
        if arguments[0] == "exit":
            sys.exit(5)
        return int(arguments[0])
    print(os.getpid(), os.getppid(), flush=True)
    if arguments:
        time.sleep(3600)
"""
WARM = """
import subprocess, sys
from pipelines.warm import warm_process
with warm_process({}):
    status = subprocess.run(["sh", "-c", sys.argv[1]]).returncode
sys.exit(status)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with the stages above and the project's own code for all else."""
    folder = tmp_path / "project"
    files = {
        "pipelines": ("__init__", "stages", "warm"),
        "deeplab_bench": ("__init__", "__main__"),
        "deeplab_bench/results": ("__init__", "files"),
        "deeplab_bench/runtime": ("__init__", "pins"),
    }
    for package, names in files.items():
        (folder / package).mkdir(parents=True)
        for name in names:
            source = (ROOT / package / f"{name}.py").read_text(encoding="utf-8")
            (folder / package / f"{name}.py").write_text(source, encoding="utf-8")
    for stage in STAGES:
        (folder / "pipelines" / f"{stage}.py").write_text("", encoding="utf-8")
    (folder / "deeplab_bench" / "command_line.py").write_text(RUN, encoding="utf-8")
    return folder


def run_warm(project: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script beside a warm process; STAGE in it stands for the command of a stage."""
    script = script.replace("STAGE", f"{sys.executable} -m deeplab_bench")
    return subprocess.run(
        [sys.executable, "-c", WARM, script],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("status", [0, 3])
def test_output_input_folder_and_status_are_those_of_the_asker(project: Path, status: int) -> None:
    script = f"mkdir x; export PYTHONPATH=$PWD; cd x; echo in | STAGE train {status} more; echo $?"
    done = run_warm(project, script)
    assert done.stdout.splitlines() == [f"out {project / 'x'} {status} more in", str(status)]
    assert done.stderr == "err\n"


def test_an_exit_keeps_its_status(project: Path) -> None:
    assert run_warm(project, "STAGE train exit < /dev/null").returncode == 5


def test_stages_fork_from_one_process(project: Path) -> None:
    """Check that both have the same parent, not the shell, as the cold stage has."""
    script = "for s in audit audit speed; do STAGE $s; done; echo $$"
    *lines, shell = run_warm(project, script).stdout.splitlines()
    (first, parent), (second, same), (_, own) = (line.split() for line in lines)
    assert first != second
    assert parent == same != shell
    assert own == shell


def test_changed_code_is_not_run_from_memory(project: Path) -> None:
    edit = "echo 'def run(c): print(7)' > deeplab_bench/command_line.py"
    script = f"STAGE train 0 < /dev/null; {edit}; STAGE train 0"
    assert run_warm(project, script).stdout.splitlines()[1:] == ["7"]


# Begins a stage that does not end by itself, and waits until it has told its process.
BEGIN = """
STAGE audit wait > told &
until [ -s told ]; do sleep 0.1; done
read stage parent < told
"""


def test_a_killed_asker_takes_its_stage_along(project: Path) -> None:
    script = "kill -KILL $!; while kill -0 $stage 2> /dev/null; do sleep 0.1; done; echo gone"
    assert run_warm(project, BEGIN + script).stdout == "gone\n"


def test_a_killed_stage_is_a_failure(project: Path) -> None:
    done = run_warm(project, f"{BEGIN}kill -KILL $stage; wait $!")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the stage was killed; if nobody did that, memory ran out")


def test_without_a_warm_process_a_stage_runs_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(warm.ADDRESS, raising=False)
    assert warm.delegate(["train", "quick", "fcn", "0"]) is None
    monkeypatch.setenv(warm.ADDRESS, str(tmp_path / "nobody"))
    assert warm.delegate(["train", "quick", "fcn", "0"]) is None


def test_the_command_s_status_is_kept_and_nothing_is_left(project: Path) -> None:
    done = run_warm(project, f"echo ${warm.ADDRESS}; exit 9")
    assert done.returncode == 9
    assert not Path(done.stdout.strip()).parent.exists()
