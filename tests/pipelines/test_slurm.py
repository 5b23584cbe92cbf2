"""Tests of a sweep on Slurm: a real one with two pretended machines, where it is installed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from miniature import Repository
from slurm import Machines, SlurmError, pretend_slurm
from stub_pipeline import TRAIN, dvc, get_environment, make_project, wait_for

from deeplab_bench.settings.cluster import Cluster
from pipelines.sweep import slurm_engine
from pipelines.sweep.engine import EngineError
from pipelines.sweep.slurm_engine import PROGRAMS, SlurmEngine
from pipelines.sweep.task import Ended, Event, Needs, Task

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
PREPARE = """\
from pipelines import download, prepare, pretrain, resolve
for stage in (resolve, download, prepare, pretrain):
    stage.main("miniature")
"""
SMALL = Needs()
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
    except SlurmError as error:
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
    yield engine
    engine.stop()
    engine.close()
    assert list_queue() == []


def make_task(name: str, script: str, needs: Needs = SMALL) -> Task:
    """Make a task that writes its process into ``STARTS``; ``script`` is of the shell."""
    return Task(
        name, ("sh", "-c", f"echo $$ >> {STARTS}; {script}"), str(Path.cwd()), None, (), (), needs
    )


def wait_for_event(
    engine: SlurmEngine, is_it: Callable[[Event], bool], seconds: float = 60
) -> Event:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in engine.poll():
            if is_it(event):
                return event
    raise AssertionError("nothing of this kind was told")


def wait_for_end(engine: SlurmEngine, seconds: float = 60) -> Ended:
    event = wait_for_event(engine, lambda event: isinstance(event, Ended), seconds)
    assert isinstance(event, Ended)
    return event


def list_queue() -> list[str]:
    command = ["squeue", "--noheader", "--format=%i %T"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def count_starts() -> int:
    return len(STARTS.read_text(encoding="utf-8").split()) if STARTS.exists() else 0


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    assert list_queue() == []


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


@pytest.mark.timeout(600)
def test_a_training_goes_on_after_its_time_limit(
    engine: SlurmEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Check the real limit, of a minute, which is the shortest; the training waits for it."""
    repository = Repository(tmp_path_factory.mktemp("repository"))
    repository.edit("iterations: 3", f"iterations: {STEPS}")
    repository.python("-c", PREPARE)
    disturbed = repository.root
    undisturbed = tmp_path_factory.mktemp("undisturbed") / "repository"
    shutil.copytree(disturbed, undisturbed)
    os.chdir(disturbed)
    engine.options = {"signal_delay_s": 10}
    train = f"exec {sys.executable} -m deeplab_bench train miniature fcn 0"
    engine.submit(make_task(TRAINING, train, Needs(hours=1 / 60)))
    log = disturbed / "logs" / f"{TRAINING}.log"
    wait_until(lambda: engine.poll() != [])
    wait_until(lambda: list_steps(log) != [])
    # Slurm itself lets it go on: when it warns it.
    os.kill(int(STARTS.read_text(encoding="utf-8")), signal.SIGSTOP)
    assert max(list_steps(log)) < STEPS
    subprocess.run(["sh", "-c", train], cwd=undisturbed, check=True, capture_output=True)
    wait_until(lambda: engine.poll() == [] and END in log.read_text(encoding="utf-8"))
    # Once is enough: a slow machine would come to the limit again.
    longer = ["scontrol", "update", f"jobid={engine.submitted[TRAINING].job}", "timelimit=60"]
    subprocess.run(longer, check=True)
    ended = wait_for_end(engine, seconds=240)
    assert (ended.status, count_starts()) == (0, 2), ended.said
    done, _, continued = log.read_text(encoding="utf-8").partition(END)
    assert min(find_steps(continued)) >= max(find_steps(done)) > 0
    assert (disturbed / CHECKPOINT).read_bytes() == (undisturbed / CHECKPOINT).read_bytes()


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
    engine.submit(make_task("evaluate@toy-fcn-0", "sleep 60"))
    for start in range(1, 4):
        wait_until(lambda start=start: engine.poll() == [] and count_starts() == start)  # type: ignore[misc]
        subprocess.run(["scancel", "--signal=USR2", f"--name={engine.name}"], check=True)
    ended = wait_for_end(engine)
    assert (ended.status, count_starts()) == (1, 3)
    assert "has not ended within its time limit, 3 times" in ended.said


def test_a_run_whose_machine_is_lost_is_done_elsewhere(
    engine: SlurmEngine, machines: Machines
) -> None:
    script = "echo $SLURMD_NODENAME >> nodes; [ -e lost ] || sleep 60"
    engine.submit(make_task("train@toy-fcn-0", script))
    wait_until(lambda: engine.poll() == [] and Path("nodes").exists())
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


def test_a_job_that_dies_without_a_report_was_lost(engine: SlurmEngine) -> None:
    engine.submit(make_task("train@toy-fcn-0", "kill -KILL $PPID; sleep 60"))
    ended = wait_for_end(engine)
    assert ended.status is None
    assert "has ended as FAILED" in ended.said


def test_a_job_that_a_user_cancels_is_a_failure(engine: SlurmEngine) -> None:
    engine.submit(make_task("train@toy-fcn-0", "sleep 60"))
    wait_until(lambda: engine.poll() == [] and count_starts() == 1)
    subprocess.run(["scancel", f"--name={engine.name}"], check=True)
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
    assert list_queue() == []
    said = dvc(tmp_path, "status")
    for name in ("train@a", "train@b", "evaluate@a", "evaluate@b"):
        assert name not in said
    assert "train@c" in said


def test_jobs_of_a_killed_driver_are_ended_first(
    engine: SlurmEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.submit(
        make_task("train@toy-fcn-0", "trap 'touch saved; exit 143' TERM; sleep 60 & wait")
    )
    wait_until(lambda: engine.poll() == [] and count_starts() == 1)
    second = SlurmEngine(Cluster(), None)
    second.submit(make_task("train@toy-fcn-0", "true"))
    assert wait_for_end(second).status == 0
    assert Path("saved").exists()
    assert "1 jobs of a sweep whose driver was killed" in capsys.readouterr().err


def test_tasks_with_the_same_needs_are_one_array(engine: SlurmEngine) -> None:
    for model in ("fcn", "aspp", "psp"):
        engine.submit(make_task(model, "true"))
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
    """Put programs with the names of Slurm's on the path."""
    for name in PROGRAMS:
        (tmp_path / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


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
    ],
)
@pytest.mark.usefixtures("_programs")
def test_settings_that_slurm_cannot_have_are_named(cluster: Cluster, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        SlurmEngine(cluster, None)


@pytest.mark.usefixtures("_programs")
def test_a_time_limit_without_time_for_work_is_named() -> None:
    with pytest.raises(EngineError, match=r"resources.hours 0.03 is too short"):
        SlurmEngine(Cluster(), None).check(Needs(hours=0.03))


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
    assert re.search("\nsrun .* --cpus-per-task=8 ", text)
    plain = engine.make_executor(Needs())._make_submission_file_text("true", "")
    assert not re.search("--(time|mem|gpus-per-node|exclusive)[= \n]", plain)


@pytest.mark.usefixtures("_programs")
def test_no_more_than_the_given_number_are_under_way() -> None:
    engine = SlurmEngine(Cluster(), 2)
    for name in ("a", "b"):
        assert engine.has_room()
        engine.submit(make_task(name, "true"))
    assert not engine.has_room()
    assert SlurmEngine(Cluster(), None).has_room()
