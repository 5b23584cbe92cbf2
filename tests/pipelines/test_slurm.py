"""Tests of a sweep on Slurm: a real one with two pretended machines, where it is installed."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import slurm
from miniature import PREPARE, Repository
from slurm import Machines, NotInstalledError, SlurmError, pretend_slurm
from stub_pipeline import TRAIN, dvc, get_environment, make_project, wait_for
from submitit.core import utils

from deeplab_bench.settings.cluster import Cluster
from pipelines.sweep import slurm_engine, slurm_job
from pipelines.sweep.engine import EngineError
from pipelines.sweep.slurm_engine import SlurmEngine
from pipelines.sweep.slurm_options import read_options
from pipelines.sweep.slurm_queue import PROGRAMS
from pipelines.sweep.task import Ended, Event, Needs, Queued, Running, Task

pytestmark = pytest.mark.long(seconds=240)

SWEEP = """\
import os, sys
from deeplab_bench.settings.cluster import Cluster
from pipelines.sweep import driver, slurm_engine
from pipelines.sweep.board import Board
from pipelines.sweep.local import LocalEngine
from pipelines.sweep.run_costs import RunCosts
from stub_pipeline import StubTasks
slurm_engine.ASK_SECONDS = 0.5
engine = LocalEngine(3, []) if sys.argv[1] == "local" else slurm_engine.SlurmEngine(Cluster(), None)
try:
    sys.exit(not driver.sweep(engine, StubTasks(), Board(RunCosts())))
finally:
    engine.close()
"""
# A driver where torch cannot be imported.
WITHOUT_TORCH = """\
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
from pipelines import repro
from pipelines.sweep import slurm_engine
slurm_engine.ASK_SECONDS = 0.5
sys.exit(repro.main(cluster="slurm"))
"""
# A training that waits for a file or a signal, and ends well.
WAIT = """\
trap asked=1 TERM
echo $1 >> starts
until [ -e "go-$1" ] || [ -n "$asked" ]; do sleep 0.1; done
echo $1 > $1
echo $1 > weights-$1
"""
# Python imports it in a job. There, a disk may be full, or the second machine may refuse its task.
IN_A_JOB = """\
import errno, os
from pathlib import Path
if "SLURM_PROCID" in os.environ:
    from pipelines.sweep import node, slurm_job
    write_report = slurm_job.write_report
    def write(report, job, event):
        if Path("full").exists():
            Path("seen").touch()
            raise OSError(errno.ENOSPC, "so it is")
        write_report(report, job, event)
    slurm_job.write_report = write
    slurm_job.ROOM_SECONDS = 0.5
    if os.environ["SLURM_PROCID"] == "1":
        node.find_problem = lambda task: "has other code"
"""
NO_ANSWER = "Batch job submission failed: Unable to contact slurm controller (connect failure)"
TIMED_OUT = "Batch job submission failed: Socket timed out on send/recv operation"
LIMIT = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, ...)"
SMALL = Needs()
PATIENCE = 300  # seconds: a busy Slurm answers late; shorter than the tasks that are to be ended
STEPS = 100
TRAINING = "train@miniature-fcn-0"
END = "the training ends after this step"
CHECKPOINT = Path("checkpoints") / "miniature" / "fcn-0.pt"
STARTS = Path("starts")  # the processes that a task had, one a line


@pytest.fixture(scope="session")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    try:
        with pretend_slurm(tmp_path_factory.mktemp("slurm")) as machines:
            yield machines
    except NotInstalledError as error:
        pytest.skip(str(error))


@pytest.fixture
def engine(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SlurmEngine]:
    """Open an engine on an empty folder, which every machine sees."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm_engine, "ASK_SECONDS", 0.5)
    for name, value in get_environment().items():
        monkeypatch.setenv(name, value)
    engine = SlurmEngine(Cluster(), None)
    assert engine.take_over() == []
    yield engine
    engine.stop()
    engine.close()
    wait_for_empty_queue()


@pytest.fixture
def _in_a_job(engine: SlurmEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(IN_A_JOB, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")


def make_task(name: str, script: str, needs: Needs = SMALL, before: str = ":") -> Task:
    """Make a task that writes its process into ``STARTS`` before ``script``, which is of the shell.

    ``before`` is what it does before that.
    """
    command = ("sh", "-c", f"{before}; echo $$ >> {STARTS}; {script}")
    return Task(name, command, str(Path.cwd()), None, (), (), needs)


def wait_for_event(engine: SlurmEngine, is_it: Callable[[Event], bool]) -> Event:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for event in engine.poll():
            if is_it(event):
                return event
    raise AssertionError("nothing of this kind was told")


def wait_for_end(engine: SlurmEngine) -> Ended:
    event = wait_for_event(engine, lambda event: isinstance(event, Ended))
    assert isinstance(event, Ended)
    return event


def poll_until(engine: SlurmEngine, is_so: Callable[[], bool]) -> None:
    """Poll until something is so; no task may end before."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        assert [event for event in engine.poll() if isinstance(event, Ended)] == []


def list_queue() -> list[str]:
    command = ["squeue", "--noheader", "--format=%i %T"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def wait_for_empty_queue() -> None:
    deadline = time.monotonic() + PATIENCE
    while list_queue() != []:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def count_starts() -> int:
    return len(STARTS.read_text(encoding="utf-8").split()) if STARTS.exists() else 0


def test_files_of_dvc_are_those_of_a_sweep_on_this_machine(
    machines: Machines, tmp_path: Path
) -> None:
    script = TRAIN.replace("$start $(date +%s.%N)", "1 2").replace("sleep 1\n", "")
    locks = []
    for where in ("local", "slurm"):
        folder = tmp_path / where
        folder.mkdir()
        make_project(folder)
        (folder / "train.sh").write_text(script, encoding="utf-8")
        done = sweep(folder, where)
        assert done.returncode == 0, done.stdout + done.stderr
        locks.append((folder / "dvc.lock").read_bytes())
    assert locks[0] == locks[1]
    wait_for_empty_queue()


def sweep(folder: Path, where: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SWEEP, where],
        cwd=folder,
        env=get_environment(**settings),
        capture_output=True,
        text=True,
    )


def test_a_login_node_needs_no_torch(machines: Machines, tmp_path: Path) -> None:
    make_project(tmp_path)
    pipeline = "stages: {resolve: {cmd: cp source resolved, deps: [source], outs: [resolved]}}\n"
    (tmp_path / "dvc.yaml").write_text(pipeline, encoding="utf-8")
    params = "{run: {profiles: [toy]}, profile: {toy: {process: {threads: 1}}}}\n"
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=tmp_path,
        env=get_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resolve: " in done.stdout
    assert "README.md stays as it was, since this machine has no " in done.stdout
    assert dvc(tmp_path, "status") == "Data and pipelines are up to date.\n"


def test_a_training_goes_on_after_its_time_limit(
    engine: SlurmEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Check the real limit, set as soon as the training trains; the training waits for it."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.edit("iterations: 3", f"iterations: {STEPS}")
    repository.python("-c", PREPARE)
    disturbed = repository.root
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "repository"
    shutil.copytree(disturbed, undisturbed)
    os.chdir(disturbed)
    engine.options = {"signal_delay_s": 10}
    train = f"exec {sys.executable} -m deeplab_bench train miniature fcn 0"
    submitted = time.monotonic()
    engine.submit(make_task(TRAINING, train, Needs(hours=1)))
    log = disturbed / "logs" / f"{TRAINING}.log"
    poll_until(engine, lambda: list_steps(log) != [])
    # Slurm itself lets it go on: when it warns it.
    os.kill(int(STARTS.read_text(encoding="utf-8")), signal.SIGSTOP)
    assert max(list_steps(log)) < STEPS
    soon = 1 + int(time.monotonic() - submitted + 30) // 60  # in half a minute or later
    set_time_limit(engine, minutes=soon)
    poll_until(engine, lambda: END in log.read_text(encoding="utf-8"))
    set_time_limit(engine, minutes=60)  # once is enough
    subprocess.run(["sh", "-c", train], cwd=undisturbed, check=True, capture_output=True)
    ended = wait_for_end(engine)
    assert (ended.status, count_starts()) == (0, 2), ended.said
    done, _, continued = log.read_text(encoding="utf-8").partition(END)
    assert min(find_steps(continued)) >= max(find_steps(done)) > 0
    assert (disturbed / CHECKPOINT).read_bytes() == (undisturbed / CHECKPOINT).read_bytes()


def set_time_limit(engine: SlurmEngine, minutes: int) -> None:
    job = engine.submitted[TRAINING].job
    command = ["scontrol", "update", f"jobid={job}", f"timelimit={minutes}"]
    subprocess.run(command, check=True)


def list_steps(log: Path) -> list[int]:
    """List the numbers of steps in a log, without the one that a training begins with."""
    return (
        [step for step in find_steps(log.read_text(encoding="utf-8")) if step]
        if log.exists()
        else []
    )


def find_steps(text: str) -> list[int]:
    return [int(step) for step in re.findall(rf"(\d+)/{STEPS} \[", text)]


def test_what_has_no_snapshots_begins_anew_some_times(engine: SlurmEngine) -> None:
    engine.submit(make_task("evaluate@toy-fcn-0", "sleep 600"))
    wait_for_event(engine, lambda event: isinstance(event, Running))
    poll_until(engine, lambda: count_starts() == 1)
    # As if for a job of a higher priority, which is not counted.
    subprocess.run(["scontrol", "requeue", engine.submitted["evaluate@toy-fcn-0"].job], check=True)
    wait_for_event(engine, lambda event: isinstance(event, Queued))
    for start in range(2, 5):
        poll_until(engine, lambda start=start: count_starts() == start)  # type: ignore[misc]
        subprocess.run(["scancel", "--signal=USR2", f"--name={engine.queue.name}"], check=True)
    ended = wait_for_end(engine)
    assert (ended.status, count_starts()) == (1, 4)
    assert "has not ended within its time limit, 3 times" in ended.said


def test_a_run_whose_machine_is_lost_is_done_elsewhere(
    engine: SlurmEngine, machines: Machines
) -> None:
    before = "[ -e lost ]; again=$?"
    script = "echo $SLURMD_NODENAME >> nodes; [ $again = 0 ] || sleep 600"
    engine.submit(make_task("train@toy-fcn-0", script, before=before))
    poll_until(engine, Path("nodes").exists)
    first = Path("nodes").read_text(encoding="utf-8").strip()
    Path("lost").touch()
    for process in reversed(list_parents(int(STARTS.read_text(encoding="utf-8")), 3)):
        os.kill(process, signal.SIGKILL)  # of Slurm, of submitit, of the task
    machines.lose(first)
    ended = wait_for_end(engine)
    machines.start(first)
    assert ended.status == 0, ended.said
    assert Path("nodes").read_text(encoding="utf-8").split()[1] != first


def list_parents(process: int, count: int) -> list[int]:
    """List a process, its parent, and so on."""
    found = [process]
    while len(found) < count:
        status = Path(f"/proc/{found[-1]}/status").read_text(encoding="utf-8")
        found.append(int(re.findall(r"PPid:\s*(\d+)", status)[0]))
    return found


def test_a_training_on_two_machines_is_one_job(engine: SlurmEngine) -> None:
    script = "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])"
    command, needs = (sys.executable, "say.py"), Needs(nodes=2)
    Path("say.py").write_text(script, encoding="utf-8")
    engine.submit(Task("train@toy-fcn-0", command, str(Path.cwd()), None, needs=needs))
    ended = wait_for_end(engine)
    assert ended.status == 0, ended.said
    # Each machine has its log; torchrun chooses which of them is the first.
    logs = [path.read_text(encoding="utf-8") for path in Path("logs").glob("train@*.log")]
    ranks = sorted(re.findall(r"rank \d of \d", log) for log in logs)
    assert ranks == [["rank 0 of 2"], ["rank 1 of 2"]]


def make_task_of_two() -> Task:
    """Make a task of two machines: the first waits as ``torchrun`` does, and the second fails."""
    pretend("python", "[ $SLURM_PROCID = 0 ] && exec sleep 600; echo so it is; exit 3")
    command, needs = (str(Path("python").absolute()), "say.py"), Needs(nodes=2)
    return Task("train@toy-fcn-0", command, str(Path.cwd()), None, needs=needs)


@pytest.mark.usefixtures("_in_a_job")
def test_a_second_machine_that_refuses_is_named_and_left_out(engine: SlurmEngine) -> None:
    engine.submit(make_task_of_two())
    ended = wait_for_end(engine)
    assert (ended.name, ended.status, ended.refused) == ("train@toy-fcn-0", None, True)
    assert ended.said.endswith(" has other code")
    assert engine.refusing == {"toy": {ended.node}}
    assert ended.node in ("n1", "n2")
    wait_for_empty_queue()


def test_a_second_machine_that_fails_is_not_waited_for(
    engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_engine, "MEMBER_SECONDS", 0.0)
    engine.submit(make_task_of_two())
    ended = wait_for_end(engine)
    assert (ended.name, ended.status, ended.refused) == ("train@toy-fcn-0", None, False)
    assert ended.said.endswith("so it is")
    wait_for_empty_queue()


@pytest.mark.usefixtures("_in_a_job")
def test_a_job_waits_on_a_full_disk(engine: SlurmEngine) -> None:
    Path("full").touch()
    script = "until [ -e go ]; do sleep 0.1; done; rm seen; touch done"
    engine.submit(make_task("train@toy-fcn-0", script))
    poll_until(engine, Path("seen").exists)  # a report of progress
    Path("go").touch()
    poll_until(engine, Path("done").exists)
    poll_until(engine, Path("seen").exists)  # the report of the end
    Path("full").unlink()
    ended = wait_for_end(engine)
    assert (ended.status, count_starts()) == (0, 1), ended.said


def test_the_end_is_not_told_if_a_signal_comes_before_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def fail(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "so it is")

    monkeypatch.setattr(slurm_job, "write_report", fail)
    monkeypatch.setattr(slurm_job, "ROOM_SECONDS", 0.0)
    monkeypatch.setattr(time, "sleep", lambda _: asked.append(signal.SIGTERM))
    with pytest.raises(OSError, match="so it is"):
        slurm_job.write_end(tmp_path / "report.json", "1", Ended("a", "n1", 0, 0.0), asked)
    assert asked == [signal.SIGTERM]


@pytest.mark.parametrize("hold", [("hold",), ("requeuehold", "state=SpecialExit")])
def test_a_job_that_slurm_holds_is_lost(engine: SlurmEngine, hold: tuple[str, ...]) -> None:
    waits = hold == ("hold",)
    engine.options = {"begin": "now+1hour"} if waits else {}
    task = make_task("train@toy-fcn-0", "sleep 600")
    engine.submit(task)
    poll_until(engine, lambda: count_starts() == (0 if waits else 1) and engine.submitted != {})
    job = engine.submitted[task.name].job
    if waits:
        subprocess.run(["scontrol", "uhold", job], check=True)
        engine.asked_at = 0.0
        assert engine.poll() == []  # the user's own wish
        subprocess.run(["scontrol", "release", job], check=True)
    subprocess.run(["scontrol", *hold, job], check=True)
    ended = wait_for_end(engine)
    assert ended.status is None
    assert ended.said.startswith(f"Slurm holds its job {job} (")


def test_a_stage_that_measures_its_machine_has_all_its_cores(engine: SlurmEngine) -> None:
    engine.submit(make_task("speed@toy-fcn", "echo $SLURM_CPUS_ON_NODE > cores", Needs(alone=True)))
    assert wait_for_end(engine).status == 0
    assert Path("cores").read_text(encoding="utf-8") == "2\n"


def test_a_job_sees_the_gpus_that_it_asks_for(
    engine: SlurmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm hides none here, as on clusters without constraints of devices."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    for gpus in (0, 1):
        script = f'echo "[$CUDA_VISIBLE_DEVICES]" > {gpus}'
        engine.submit(make_task("train@toy-fcn-0", script, Needs(gpus=gpus)))
        assert wait_for_end(engine).status == 0
    assert Path("0").read_text(encoding="utf-8") == "[]\n"
    assert Path("1").read_text(encoding="utf-8") == "[0]\n"


def test_a_full_disk_does_not_end_the_submission(
    engine: SlurmEngine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm has the job already, the first time; it is not to run beside its successor."""
    monkeypatch.setattr(slurm_engine, "RETRY_SECONDS", 0.0)
    failures = [errno.EDQUOT, errno.ENOSPC]
    move = utils.JobPaths.move_temporary_file

    def fail_first(*arguments: Any, **options: Any) -> None:
        if failures:
            raise OSError(failures.pop(0), "so it is")
        move(*arguments, **options)

    monkeypatch.setattr(utils.JobPaths, "move_temporary_file", fail_first)
    engine.submit(make_task("train@toy-fcn-0", "until [ -e go ]; do sleep 0.1; done"))
    poll_until(engine, lambda: count_starts() == 1)
    alone = [engine.submitted["train@toy-fcn-0"].job, "RUNNING"]
    poll_until(engine, lambda: list_queue() == alone)
    Path("go").touch()
    assert wait_for_end(engine).status == 0
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": make room on the disk")[0] for line in said] == [
        "error: Disk quota exceeded",
        "error: No space left on device",
    ]


def test_a_job_that_dies_without_a_report_was_lost(engine: SlurmEngine) -> None:
    engine.submit(make_task("train@toy-fcn-0", "kill -KILL $PPID; sleep 60"))
    ended = wait_for_end(engine)
    assert ended.status is None
    assert "has ended as FAILED" in ended.said


def test_a_job_that_a_user_cancels_is_a_failure(engine: SlurmEngine) -> None:
    engine.submit(make_task("train@toy-fcn-0", "sleep 600"))
    poll_until(engine, lambda: count_starts() == 1)
    subprocess.run(["scancel", f"--name={engine.queue.name}"], check=True)
    ended = wait_for_end(engine)
    assert ended.status == 1
    assert "was cancelled" in ended.said


def test_an_interruption_leaves_nothing_in_the_queue(machines: Machines, tmp_path: Path) -> None:
    make_project(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", SWEEP, "slurm"],
        cwd=tmp_path,
        env=get_environment(SLOW="c"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_for(tmp_path / "logs" / "train@c.log")
        wait_for(tmp_path / "logs" / "slurm" / "evaluate@b.json", having='"ended": true')
        wait_for(tmp_path / "logs" / "slurm" / "evaluate@a.json", having='"ended": true')
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
    wait_for_empty_queue()
    said = dvc(tmp_path, "status")
    for name in ("train@a", "train@b", "evaluate@a", "evaluate@b"):
        assert name not in said
    assert "train@c" in said


def test_jobs_of_a_killed_driver_are_ended_first(
    engine: SlurmEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "trap 'touch saved; exit 143' TERM"
    engine.submit(make_task("train@toy-fcn-0", "sleep 600 & wait", before=before))
    poll_until(engine, lambda: count_starts() == 1)
    second = SlurmEngine(Cluster(), None)
    assert second.take_over() == []
    second.submit(make_task("train@toy-fcn-0", "true"))
    assert wait_for_end(second).status == 0
    assert Path("saved").exists()
    assert "1 jobs of a sweep whose driver was killed" in capsys.readouterr().err


def test_what_ends_well_without_its_driver_is_not_done_again(
    machines: Machines, tmp_path: Path
) -> None:
    make_project(tmp_path)
    (tmp_path / "train.sh").write_text(WAIT, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-c", SWEEP, "slurm"], cwd=tmp_path, env=get_environment()
    ) as process:
        for model in ("a", "b", "c"):
            wait_for(tmp_path / STARTS, having=model)
        process.kill()
    for model in ("a", "b"):
        (tmp_path / f"go-{model}").touch()
        wait_for(tmp_path / "logs" / "slurm" / f"train@{model}.json", having='"ended": true')
    done = sweep(tmp_path, "slurm")  # which asks c to end
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 jobs of a sweep whose driver was killed" in done.stderr
    assert sorted((tmp_path / STARTS).read_text(encoding="utf-8").split()) == ["a", "b", "c"]
    assert dvc(tmp_path, "status") == "Data and pipelines are up to date.\n"


def test_reports_of_what_has_ended_well_are_kept(tmp_path: Path) -> None:
    ends = {"a": Ended("a", "n1", 0, 1.0, digest="so it is"), "b": Ended("b", "n1", 1, 1.0)}
    for name, ended in ends.items():
        slurm_job.write_report(tmp_path / f"{name}.json", "1", ended)
    slurm_job.write_report(tmp_path / "c.json", "1", Running("c", "n1"))
    (tmp_path / "d.json").touch()
    (tmp_path / "1_log.out").touch()
    assert slurm_job.clear_reports(tmp_path) == [ends["a"]]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def test_tasks_with_the_same_needs_are_one_array(engine: SlurmEngine) -> None:
    for index, model in enumerate(("fcn", "aspp", "psp")):
        engine.submit(make_task(model, "sleep 600", replace(SMALL, expected_memory_mib=index)))
    while not engine.submitted:  # Slurm may not answer at once
        engine.poll()
    assert len({one.job.partition("_")[0] for one in engine.submitted.values()}) == 1


def test_what_slurm_refuses_fails_alone(engine: SlurmEngine) -> None:
    tasks = {"fcn": Needs(memory_mib=2**20), "aspp": Needs(cpus=100), "psp": Needs()}
    for model, needs in tasks.items():
        engine.submit(make_task(model, "true", needs))
    ends: dict[str, Ended] = {}
    while len(ends) < len(tasks):
        ends |= {event.name: event for event in engine.poll() if isinstance(event, Ended)}
    assert [ends[name].status for name in tasks] == [1, 1, 0]
    assert ends["fcn"].said.startswith("Slurm refuses a job with 1 core and 1024.0 GiB of memory: ")
    assert "it needs 100 cores, and its job would wait for ever (" in ends["aspp"].said
    engine.options = {"partition": "nope"}
    engine.submit(make_task("resolve@toy", "true"))
    said = wait_for_end(engine).said
    assert re.fullmatch("Slurm refuses a job with 1 core: invalid partition .*: nope; .*", said)


@pytest.fixture
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put programs with the names of Slurm's on the path of the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in PROGRAMS:
        pretend(name, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(slurm_engine, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(slurm_engine, "POLL_SECONDS", 0.0)


def pretend(program: str, script: str) -> None:
    Path(program).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    Path(program).chmod(0o755)


@pytest.mark.usefixtures("_programs")
def test_a_cluster_that_is_not_there_is_named() -> None:
    pretend("squeue", "echo 'squeue: fatal: no configuration' >&2; exit 1")
    with pytest.raises(EngineError, match="Slurm does not answer: squeue: fatal: no configuration"):
        SlurmEngine(Cluster(), None)


@pytest.mark.usefixtures("_programs")
def test_a_controller_that_does_not_answer_is_waited_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine = SlurmEngine(Cluster(), None)
    engine.submit(make_task("train@toy-fcn-0", "true"))
    pretend("squeue", "exit 1")
    for _ in range(2):
        assert engine.poll() == []
    assert capsys.readouterr().err.count("squeue fails") == 1
    pretend("squeue", "")
    pretend("sbatch", f"echo 'sbatch: error: {NO_ANSWER}' >&2; exit 1")
    for _ in range(2):
        assert engine.poll() == []
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {NO_ANSWER}; jobs are submitted as soon as ")
    assert said.count("\n") == 1
    pretend("sbatch", "echo Submitted batch job 7")
    assert engine.poll() == []
    assert [one.job for one in engine.submitted.values()] == ["7"]


@pytest.mark.usefixtures("_programs")
def test_a_job_that_slurm_may_have_got_does_not_run_beside_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "ASK_SECONDS", 0.0)
    engine = SlurmEngine(Cluster(), None)
    task = make_task("train@toy-fcn-0", "true")
    engine.submit(task)
    pretend("sbatch", f"echo 'sbatch: error: {TIMED_OUT}' >&2; exit 1")
    assert engine.poll() == []
    pretend("sbatch", "echo Submitted batch job 8")
    pretend("squeue", "exit 1")
    assert engine.poll() == []
    pretend("squeue", "echo '7|RUNNING|n1|None'")
    pretend("scancel", "echo $@ >> cancelled")
    assert engine.poll() == []
    assert engine.waiting == [task]
    assert Path("cancelled").read_text(encoding="utf-8") == "7\n"
    pretend("squeue", "echo '7|CANCELLED|n1|None'")
    engine.poll()
    assert [one.job for one in engine.submitted.values()] == ["8"]


@pytest.mark.usefixtures("_programs")
def test_a_lost_job_is_cancelled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_engine, "ASK_SECONDS", 0.0)
    engine = SlurmEngine(Cluster(), None)
    engine.submit(make_task("train@toy-fcn-0", "true"))
    pretend("sbatch", "echo Submitted batch job 7")
    pretend("squeue", "echo '7|NODE_FAIL|n1|None'")
    pretend("scancel", "echo $@ >> cancelled")
    assert wait_for_end(engine).status is None
    assert Path("cancelled").read_text(encoding="utf-8") == "7\n"


@pytest.mark.usefixtures("_programs")
def test_a_machine_that_refuses_a_profile_gets_others() -> None:
    engine = SlurmEngine(Cluster(), None)
    engine.refusing = {"toy": {"n1"}}
    pretend("sbatch", '/bin/cat "$1" >> submitted; echo Submitted batch job 7')
    engine.submit(make_task("train@quick-fcn-0", "true"))
    engine.poll()
    assert "exclude" not in Path("submitted").read_text(encoding="utf-8")
    engine.submit(make_task("train@toy-fcn-0", "true"))
    engine.poll()
    assert "#SBATCH --exclude=n1\n" in Path("submitted").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_programs")
def test_unusual_reasons_of_waiting_are_told_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_engine, "ASK_SECONDS", 0.0)
    engine = SlurmEngine(Cluster(), None)
    engine.submit(make_task("train@toy-fcn-0", "true"))
    pretend("sbatch", "echo Submitted batch job 7")
    for reason in ("Priority", "PartitionDown", "PartitionDown", "Resources"):
        pretend("squeue", f"echo '7|PENDING||{reason}'")
        assert engine.poll() == []
    assert capsys.readouterr().err == (
        "warning: train@toy-fcn-0: its job 7 waits, as Slurm says: PartitionDown\n"
    )


@pytest.mark.usefixtures("_programs")
def test_a_limit_of_jobs_is_waited_for_only_behind_own_jobs() -> None:
    engine = SlurmEngine(Cluster(), None)
    engine.queue.has_accounting = False
    engine.submit(make_task("resolve", "true"))
    pretend("sbatch", "echo Submitted batch job 7")
    assert engine.poll() == []
    for model in ("fcn", "psp"):
        engine.submit(make_task(model, "true"))
    pretend("sbatch", f"echo 'sbatch: error: {LIMIT}' >&2; exit 1")
    assert engine.poll() == []
    engine.submitted.clear()
    ends = engine.poll()
    assert [(end.name, end.status) for end in ends if isinstance(end, Ended)] == [
        ("fcn", 1),
        ("psp", 1),
    ]
    assert isinstance(ends[0], Ended)
    assert ends[0].said == (
        f"Slurm refuses a job with 1 core: {LIMIT}; 2 jobs were submitted at once: JOBS=n submits "
        "n at most"
    )


@pytest.mark.usefixtures("_programs")
def test_a_second_machine_may_fail_before_its_job_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slurm_engine, "ASK_SECONDS", 0.0)
    engine = SlurmEngine(Cluster(), None)
    engine.has_begun = True
    pretend("sbatch", "echo Submitted batch job 7")
    engine.submit(make_task_of_two())
    pretend("squeue", "echo '7|RUNNING|n1|None'")
    assert engine.poll() == []
    one = engine.submitted["train@toy-fcn-0"]
    report = slurm_job.get_report_of_member(one.report, 1)
    slurm_job.write_report(report, "7", Ended(one.task.name, "n2", 1, 0.0, "so it is"))
    assert engine.poll() == []
    pretend("squeue", "echo '7|PENDING||BeginTime'")
    assert engine.poll() == []
    monkeypatch.setattr(slurm_engine, "MEMBER_SECONDS", 0.0)
    pretend("squeue", "echo '7|RUNNING|n1|None'")
    assert engine.poll() == []
    slurm_job.write_report(report, "7", Ended(one.task.name, "n2", 1, 0.0, "so it is"))
    assert wait_for_end(engine).status is None


@pytest.mark.usefixtures("_programs")
def test_a_submission_that_fails_otherwise_is_told() -> None:
    engine = SlurmEngine(Cluster(), None)
    pretend("sbatch", "echo welcome")
    engine.submit(make_task("train@toy-fcn-0", "true"))
    ended = wait_for_end(engine)
    assert ended.status == 1
    assert ended.said.startswith("Slurm refuses a job with 1 core: Could not make sense of sbatch")
    Path("sbatch").unlink()
    engine.submit(make_task("train@toy-fcn-0", "true"))
    ended = wait_for_end(engine)
    assert ended.status == 1
    assert ended.said.startswith("Slurm refuses a job with 1 core: [Errno 2] ")


@pytest.mark.usefixtures("_programs")
def test_a_slurm_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would else go unseen that these tests do not run."""
    monkeypatch.setattr(slurm, "START_SECONDS", 0)
    for name in (*slurm.DAEMONS, "munge"):
        pretend(name, "exit 1")
    with pytest.raises(SlurmError, match="munge fails"), pretend_slurm(tmp_path):
        pass


def test_a_machine_without_slurm_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineError, match="Slurm's program sbatch is not on the PATH"):
        SlurmEngine(Cluster(), None)


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (
            Cluster(files="remote", folder="/scratch"),
            "cluster.files is 'remote', but Slurm needs 'shared'",
        ),
        (Cluster(slurm={"job-name": "x"}), "cluster.slurm.job_name is set by the sweep itself"),
        (Cluster(slurm={"name": "x"}), "cluster.slurm.name is set by the sweep itself"),
        (Cluster(slurm={"mem_gb": 32}), "cluster.slurm.mem_gb is no option of sbatch: use mem"),
        (
            Cluster(slurm={"signal_delay_s": "2 min"}),
            "cluster.slurm.signal_delay_s is '2 min', but must be a number of seconds",
        ),
        (
            Cluster(slurm={"signal_delay_s": 0}),
            "cluster.slurm.signal_delay_s is 0, but must be a number of seconds, 1 or more",
        ),
        (
            Cluster(slurm={"gpus_per_node": "a100:1"}),
            "cluster.slurm.gpus_per_node is set by the sweep itself",
        ),
        (Cluster(slurm={"num_gpus": 2}), "cluster.slurm.num_gpus is set by the sweep itself"),
        (Cluster(slurm={"time": "1.5"}), "cluster.slurm.time is '1.5', but must be minutes, "),
        (Cluster(slurm={"time": "-5"}), "cluster.slurm.time is '-5', but must be minutes, "),
        (
            Cluster(slurm={"gres": {"gpu": 1}}),
            "cluster.slurm.gres is {'gpu': 1}, but must be text, a number, true or a list",
        ),
    ],
)
@pytest.mark.usefixtures("_programs")
def test_settings_that_slurm_cannot_have_are_named(cluster: Cluster, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        SlurmEngine(cluster, None)


@pytest.mark.parametrize(
    ("given", "minutes"),
    [
        (90, 90),
        ("1:30", 2),
        ("4:00:00", 240),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-00:00:30", 2881),
        ("unlimited", "UNLIMITED"),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(given: int | str, minutes: int | str) -> None:
    assert read_options({"time": given}) == {"time": minutes}


@pytest.mark.usefixtures("_programs")
def test_a_time_limit_without_time_for_work_is_named() -> None:
    with pytest.raises(EngineError, match=r"^resources.hours 0.03 is too short"):
        SlurmEngine(Cluster(), None).check(Needs(hours=0.03))
    with pytest.raises(EngineError, match=r"^cluster.slurm.time 1 is too short"):
        SlurmEngine(Cluster(slurm={"time": "0:30"}), None).check(Needs())


@pytest.mark.usefixtures("_programs")
def test_needs_become_options_of_sbatch() -> None:
    engine = SlurmEngine(Cluster(slurm={"partition": "gpu", "mem-per-cpu": "1G", "qos": "low"}), 3)
    needs = Needs(cpus=2, gpus=1, memory_mib=2048, hours=0.51, alone=True, nodes=2, processes=4)
    text = engine.make_executor(needs)._make_submission_file_text("true", "")
    options = set(re.findall("#SBATCH --(.*)", text))
    assert options >= {
        "nodes=2",
        "ntasks-per-node=1",
        "cpus-per-task=8",
        "gpus-per-node=4",
        "mem=2048M",
        "time=31",
        "exclusive",
        "partition=gpu",
        "mem-per-cpu=1G",
        "qos=low",
        "requeue",
        "signal=USR2@90",
    }
    assert re.search("\nsrun .* --cpu-bind=none ", text)
    assert "--cpus-per-task" not in text.partition("\nsrun ")[2]
    text = engine.make_executor(replace(needs, alone=False))._make_submission_file_text("true", "")
    assert re.search("\nsrun .* --cpus-per-task=8 ", text)
    plain = engine.make_executor(Needs())._make_submission_file_text("true", "")
    assert not re.search("--(time|mem|gpus-per-node|exclusive)[= \n]", plain)


@pytest.mark.usefixtures("_programs")
def test_options_of_sbatch_may_be_lists() -> None:
    options = {"exclude": ["n1", "n2"], "setup": "module load cuda", "exclusive": False}
    engine = SlurmEngine(Cluster(slurm=options), None)
    text = engine.make_executor(Needs(), {"n3"})._make_submission_file_text("true", "")
    assert "#SBATCH --exclude=n1,n2,n3\n" in text
    assert "\nmodule load cuda\n" in text
    assert "exclusive" not in text


@pytest.mark.usefixtures("_programs")
def test_no_more_than_the_given_number_are_under_way() -> None:
    engine = SlurmEngine(Cluster(), 2)
    for name in ("a", "b"):
        assert engine.has_room()
        engine.submit(make_task(name, "true"))
    assert not engine.has_room()
    assert SlurmEngine(Cluster(), None).has_room()
