"""Tests of a sweep on a Ray cluster of two machines with a core each, all of them on this one."""

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import Mock

import psutil
import pytest
from miniature import Repository
from stub_pipeline import dvc, get_environment, list_cache, make_project, wait_for

from deeplab_bench.runtime.pins import list_pins
from deeplab_bench.settings.sweep import SweepParams, SweepProfile, SweepRun
from pipelines.sweep import node
from pipelines.sweep import store as store_module
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.store import Store, StoreError
from pipelines.sweep.task import Ended, Needs, Task
from pipelines.sweep.tasks import StoreTasks
from pipelines.sweep.torchrun import add_torchrun

cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = pytest.mark.long(seconds=220)

ROOT = Path(__file__).resolve().parents[2]
# The engine gets an address; the tasks are changed by what the test says in the environment.
REPRODUCE = """\
import json, os, sys
from dataclasses import replace
from deeplab_bench.errors import UserError
from deeplab_bench.settings.cluster import Cluster
import ray
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.node import digest_software
from pipelines.sweep.ray_engine import RayEngine
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.task import Needs
from pipelines.sweep.tasks import StoreTasks, Tasks
from types import SimpleNamespace
remote = os.environ.get("REMOTE")
cluster = Cluster(files="storage", folder=os.environ["FOLDER"]) if remote else Cluster()
class OurTasks(StoreTasks if remote else Tasks):
    def find_needs(self, run):
        return Needs(**json.loads(os.environ.get("NEEDS", "{}")).get(run.addressing, {}))
    def make(self, run, needs):
        command = ("sh", "-c", "exec " + run.cmd)
        environment = json.loads(os.environ.get("SETTINGS", "{}"))
        return replace(super().make(run, needs), command=command, environment=environment)
try:
    engine = RayEngine(cluster, sys.argv[1], None)
    if "REFUSED" in os.environ:
        head = ray.get_runtime_context().get_node_id()
        engine.refusals = {profile: {head: "it has other code"} for profile in "abc"}
    code = os.environ.get("CODE") or digest_software()
    costs = RunCosts()
    parameters = SimpleNamespace(cluster=cluster)
    tasks = OurTasks(parameters, code, costs, *([{"url": remote}] if remote else []))
    sys.exit(not sweep(engine, tasks, Board(costs)))
except UserError as error:
    sys.exit(f"error: {error}")
"""
SWEEP = """\
import sys
from deeplab_bench.runtime.pins import list_pins
from deeplab_bench.settings.sweep import load_sweep_params
from pipelines.repro import open_engine
from pipelines.sweep.board import Board
from pipelines.sweep.driver import sweep
from pipelines.sweep.node import digest_software
from pipelines.sweep.run_costs import RunCosts
from pipelines.sweep.tasks import open_tasks
params = load_sweep_params()
with open_engine(params, sys.argv[1], jobs=None) as engine:
    costs = RunCosts()
    tasks = open_tasks(params, digest_software(), costs, is_cluster=True)
    sys.exit(not sweep(engine, tasks, Board(costs)))
"""
ITERATIONS = 400  # some seconds
RECORDS = ("fingerprints", "runs", "samples")
EVALUATION_TIMING = "results/miniature/timings/evaluate/plain/fcn-0.json"
# The same bytes whenever and wherever it runs; its time depends on the test.
TRAIN = """\
[ -e "weights-$1" ] && echo "weights-$1 is still here" && exit 8
sleep ${SLEEP:-0}
cat source > weights-$1
echo $1 >> weights-$1
cat weights-$1 > $1
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two machines with a core each."""
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path)
    (tmp_path / "train.sh").write_text(TRAIN, encoding="utf-8")
    return tmp_path


def start(project: Path, address: str, **settings: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", REPRODUCE, address],
        cwd=project,
        env=get_environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(project: Path, address: str, **settings: str) -> subprocess.CompletedProcess[str]:
    process = start(project, address, **settings)
    out, err = process.communicate()
    return subprocess.CompletedProcess([], process.returncode, out, err)


def read_lock_of_plain_repro(folder: Path) -> str:
    folder.mkdir()
    make_project(folder)
    (folder / "train.sh").write_text(TRAIN, encoding="utf-8")
    dvc(folder, "repro")
    return (folder / "dvc.lock").read_text(encoding="utf-8")


def test_files_of_dvc_are_those_of_plain_repro(project: Path, cluster: Any) -> None:
    done = run(project, cluster.address)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = read_lock_of_plain_repro(project / "plain")
    assert (project / "dvc.lock").read_text(encoding="utf-8") == expected
    assert list_cache(project) == list_cache(project / "plain")
    events = (project / "logs" / "sweep.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(events[-1])
    assert last == last | {"event": "end", "done": 8, "failed": 0, "left": 0}


def test_machines_may_share_a_remote_alone(project: Path, cluster: Any) -> None:
    """Check machines that have a folder of their own, without the results of other stages."""
    folder = project / "machine"
    folder.mkdir()
    shutil.copy(project / "train.sh", folder)
    (folder / "weights-a").write_text("of an earlier sweep", encoding="utf-8")
    expected = read_lock_of_plain_repro(project / "plain")
    remote = {"REMOTE": str(project / "remote"), "FOLDER": str(folder)}
    done = run(project, cluster.address, **remote)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "dvc.lock").read_text(encoding="utf-8") == expected
    assert (folder / "logs" / "train@a.log").exists()
    assert not (folder / "report").exists()  # it is made by the driver


def test_workers_that_are_killed_change_nothing(tmp_path: Path, cluster: Any) -> None:
    """Kill machines at random, with their disks, in a training whose files travel by a remote.

    A whole pipeline is compared with one that runs on this machine alone.
    """
    alone = make_repository(tmp_path / "alone")
    alone.drop_stages("report")  # it tells the time
    alone.repro()
    repository = make_repository(tmp_path / "driver")
    machine = tmp_path / "machine"
    shutil.copytree(alone.root / "data", machine / "data")
    share_a_remote_alone(repository, machine)
    checkpoints = machine / "checkpoints" / "miniature"
    kills = sorted(random.Random(0).sample(range(5, ITERATIONS - 100), 5))
    with repository.start(sys.executable, "-c", SWEEP, cluster.address) as driver:
        for iteration in kills:
            while read_newest_iteration(tmp_path / "remote") < iteration:
                assert driver.poll() is None, driver.communicate()
                time.sleep(0.02)
            kill_stage(machine, checkpoints)
        out, err = driver.communicate()
    assert driver.returncode == 0, out + err
    assert err.count("warning: train@miniature-fcn-0: ") == len(kills), err
    log = (machine / "logs" / "train@miniature-fcn-0.log").read_text(encoding="utf-8")
    bars = re.findall(r"training fcn [^\r\n]*?\| (\d+)/\d+ \[00:00<\?", log)
    starts = [int(start) for start in bars]
    assert starts[-1] >= kills[-1]  # the remote alone had a snapshot
    expected, found = read_results(alone.root), read_results(repository.root)
    assert "checkpoints/miniature/fcn-0.pt" in expected
    assert found == expected
    timing = json.loads((repository.root / EVALUATION_TIMING).read_text(encoding="utf-8"))
    head = repository.run("git", "rev-parse", "HEAD").stdout.strip()
    assert [source["commit"] for source in timing["sources"].values()] == [head, head]
    assert not list(tmp_path.glob("remote/**/*.snapshot"))


def make_repository(folder: Path) -> Repository:
    folder.mkdir()
    repository = Repository(folder, pins=list_pins("portable", threads=1))
    repository.edit("models: [fcn, aspp]", "models: [fcn]")
    repository.edit("hardware: [cpu]", "hardware: []")
    repository.edit("iterations: 3", f"iterations: {ITERATIONS}")
    repository.edit(
        "    data: {dataset: shapes",
        "    process: {determinism: portable, threads: 1}\n    data: {dataset: shapes",
    )
    return repository


def share_a_remote_alone(repository: Repository, machine: Path) -> None:
    """Let a repository's machines share a remote alone, with two snapshots a second."""
    repository.change("training/watch.py", "SNAPSHOT_SECONDS = 120", "SNAPSHOT_SECONDS = 0.5")
    repository.dvc("remote", "add", "storage", str(machine.parent / "remote"))
    cluster = f"\ncluster: {{files: storage, folder: {machine}}}\n"
    repository.params.write_text(repository.params.read_text() + cluster, encoding="utf-8")
    repository.commit()


def read_newest_iteration(folder: Path) -> int:
    return max((int(path.suffixes[-2][1:]) for path in folder.rglob("*.snapshot")), default=0)


def kill_stage(folder: Path, checkpoints: Path) -> None:
    """Kill the stage that runs in a folder, or soon will, and the worker of Ray that runs it.

    The snapshots there are lost, before the stage begins again.
    """
    until = time.monotonic() + 600
    while time.monotonic() < until:
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                worker = process.parent() if process.cwd() == str(folder) else None
                if worker is not None and "ray::" in worker.name():
                    for victim in (worker, process):
                        victim.kill()
                    for path in checkpoints.glob("*.snapshot"):
                        path.unlink(missing_ok=True)
                    psutil.wait_procs([worker, process], timeout=600)
                    return
        time.sleep(0.1)
    raise AssertionError("no stage runs")


def read_results(root: Path) -> dict[str, bytes]:
    """Read checkpoints, records and pictures: all that does not tell the time or the commit."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for pattern in ("checkpoints/*/*.pt", *(f"results/*/{name}/**/*.*" for name in RECORDS))
        for path in root.glob(pattern)
    }


def test_a_machine_that_is_lost_is_replaced(project: Path, cluster: Any) -> None:
    """Check that runs which only this machine can do wait for it, begun or not."""
    third = cluster.add_node(num_cpus=2)
    needs = json.dumps({name: {"cpus": 2} for name in ("train@b", "evaluate@a")})
    settings = json.dumps({"SLEEP": "8"})
    with start(project, cluster.address, SETTINGS=settings, NEEDS=needs) as process:
        wait_for(project / "logs" / "train@b.log")
        cluster.remove_node(third, allow_graceful=False)
        wait_for(project / "logs" / "sweep.jsonl", having='"event": "done", "run": "train@a"')
        time.sleep(2)
        fourth = cluster.add_node(num_cpus=2)
        out, err = process.communicate()
    cluster.remove_node(fourth)
    assert process.returncode == 0, out + err
    assert "warning: train@b: " in err  # Ray may tell the loss in its own words
    assert (project / "weights-b").read_text(encoding="utf-8") == "0\nb\n"


def test_what_no_machine_is_large_enough_for_is_named(project: Path, cluster: Any) -> None:
    needs = json.dumps({"train@b": {"memory_mib": 1 << 30, "gpus": 1}})
    done = run(project, cluster.address, NEEDS=needs)
    assert done.returncode == 1
    assert (
        "error: train@b: it needs 1 core, 1 GPU and 1048576.0 GiB of memory, and the cluster has "
        "2 machines with at most 1 cores, 0 GPUs, "
    ) in done.stderr
    assert "train@a" not in dvc(project, "status")


@pytest.mark.parametrize(
    ("needs", "wanted"),
    [
        (Needs(), {"num_cpus": 1}),
        (Needs(memory_mib=3), {"memory": 3 << 20}),
        (Needs(memory_mib=3, expected_memory_mib=2), {"memory": 3 << 20}),
        (Needs(expected_memory_mib=2), {"memory": 2 << 20}),
        (Needs(expected_memory_mib=99), {"memory": 64 << 20}),
        (Needs(gpus=1, expected_memory_mib=99), {"num_gpus": 1, "memory": 8 << 20}),
        (Needs(alone=True), {"num_cpus": 16}),
        (Needs(alone=True, expected_memory_mib=99), {"num_cpus": 16, "memory": 64 << 20}),
        (Needs(gpus=1, alone=True), {"num_cpus": 4, "num_gpus": 1}),
        (Needs(cpus=2, gpus=1), {"num_cpus": 2, "num_gpus": 1}),
    ],
)
def test_a_task_never_asks_for_more_than_one_machine_has(
    needs: Needs, wanted: dict[str, int]
) -> None:
    from pipelines.sweep.ray_engine import get_options, list_fitting

    large, with_gpu = {"CPU": 16, "memory": 64 << 20}, {"CPU": 4, "GPU": 1, "memory": 8 << 20}
    fitting = list_fitting([{"Resources": large}, {"Resources": with_gpu}], needs)
    assert get_options(fitting, needs) == {"num_cpus": 1, "num_gpus": 0} | wanted


def test_a_task_may_wait_for_a_machine_that_is_lost() -> None:
    from pipelines.sweep.ray_engine import get_options

    needs = Needs(cpus=2, gpus=1, alone=True, expected_memory_mib=9)
    assert get_options([], needs) == {"num_cpus": 2, "num_gpus": 1, "memory": 0}


def test_machines_with_other_code_are_refused(project: Path, cluster: Any) -> None:
    done = run(project, cluster.address, CODE="of another commit")
    assert done.returncode == 1
    assert "has other code than the driver has begun with" in done.stderr
    assert "error: resolve: no machine of the cluster can go on" in done.stderr
    assert not (project / "resolved").exists()


def test_a_machine_that_has_refused_gets_no_more(project: Path, cluster: Any) -> None:
    """Check that one of two machines with a core each does all; there is no more than it does."""
    settings = json.dumps({"SLEEP": "4"})
    done = run(project, cluster.address, REFUSED="1", SETTINGS=settings)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (project / "logs" / "sweep.jsonl").read_text(encoding="utf-8").splitlines()
    events = [event for line in lines if "train@" in (event := json.loads(line)).get("run", "")]
    assert max(event["sweep"]["running"] for event in events) == 1


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "error: --cluster 127.0.0.1:9: nobody listens there (Connection refused)"),
        ("somewhere", "error: --cluster somewhere is neither `auto`, `slurm` nor HOST:PORT"),
        (
            "ray://a:10001",
            "error: --cluster ray://a:10001 is neither `auto`, `slurm` nor HOST:PORT",
        ),
    ],
)
def test_an_address_without_a_cluster_is_named(project: Path, address: str, said: str) -> None:
    done = run(project, address)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_another_program_at_the_address_is_named(project: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        done = run(project, address)
        server.shutdown()
    assert done.returncode == 1
    said = f"error: --cluster {address}: something else than the head of a Ray cluster listens"
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) == 1


def test_the_loss_of_the_head_keeps_what_is_finished(project: Path) -> None:
    script = TRAIN.replace("sleep", '[ "$1" = a ] || sleep')
    (project / "train.sh").write_text(script, encoding="utf-8")
    own = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    address = own.address
    try:
        with start(project, address, SETTINGS=json.dumps({"SLEEP": "300"})) as process:
            events = project / "logs" / "sweep.jsonl"
            wait_for(events, having='"event": "done", "run": "evaluate@a"')
            own.head_node.all_processes["gcs_server"][0].process.kill()
            _, err = process.communicate()
    finally:
        own.shutdown()
    assert process.returncode == 1
    assert f"error: the head of the Ray cluster, {address}, does not answer any more" in err
    assert "evaluate@a" in (project / "dvc.lock").read_text(encoding="utf-8")


def test_an_interruption_keeps_what_is_finished(project: Path, cluster: Any) -> None:
    script = TRAIN.replace("sleep", '[ "$1" != c ] || sleep')
    (project / "train.sh").write_text(script, encoding="utf-8")
    with start(project, cluster.address, SETTINGS=json.dumps({"SLEEP": "300"})) as process:
        events = project / "logs" / "sweep.jsonl"
        wait_for(events, having='"event": "done", "run": "train@a"')
        wait_for(events, having='"event": "running", "run": "train@c"')
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    said = dvc(project, "status")
    assert "train@a" not in said
    assert "train@c" in said
    left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(project)]
    psutil.wait_procs(left, timeout=200)
    assert not [process for process in left if process.is_running()]


class TestStore:
    def test_files_travel_once(self, tmp_path: Path) -> None:
        driver, machine = tmp_path / "driver", tmp_path / "machine"
        driver.mkdir()
        (driver / "a.pt").write_bytes(b"tensors")
        store = Store({"url": str(tmp_path / "remote")})
        digests = store.offer(driver, ["a.pt"])
        store.fetch(machine, digests)
        assert (machine / "a.pt").read_bytes() == b"tensors"
        there = [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]
        before = [path.stat().st_mtime_ns for path in there]
        assert store.offer(driver, ["a.pt"]) == digests
        assert [path.stat().st_mtime_ns for path in there] == before
        (machine / "a.pt").write_bytes(b"other")
        store.fetch(machine, digests)
        assert (machine / "a.pt").read_bytes() == b"tensors"

    def test_a_remote_that_does_not_answer_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.pt").touch()
        (tmp_path / "remote").touch()  # no folder
        store = Store({"url": str(tmp_path / "remote")})
        with pytest.raises(StoreError, match=r"the DVC remote at .*remote/sweep: "):
            store.offer(tmp_path, ["a.pt"])

    def test_a_remote_that_is_away_for_a_moment_is_asked_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "FIRST_PAUSE_SECONDS", 0.01)
        (tmp_path / "a.pt").write_bytes(b"tensors")
        store = Store({"url": str(tmp_path / "remote")})
        answers = iter([TimeoutError("503"), ConnectionError("reset"), None])
        put_file = store.fs.put_file

        def fail_twice(*arguments: Any) -> None:
            if (error := next(answers)) is not None:
                raise error
            put_file(*arguments)

        monkeypatch.setattr(store.fs, "put_file", fail_twice)
        digests = store.offer(tmp_path, ["a.pt"])
        store.fetch(tmp_path / "machine", digests)
        assert (tmp_path / "machine" / "a.pt").read_bytes() == b"tensors"

    def test_a_remote_that_stays_away_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "FIRST_PAUSE_SECONDS", 0.01)
        monkeypatch.setattr(store_module, "PATIENCE_SECONDS", 0.05)
        store = Store({"url": str(tmp_path / "remote")})
        with pytest.raises(StoreError, match=r"the DVC remote at .*remote/sweep: "):
            store.fetch(tmp_path, {"a.pt": "0" * 64})

    def test_a_training_outlasts_a_remote_that_is_away_at_its_end(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Check that it goes on from its snapshot, and that the driver removes this at the end."""
        machine = tmp_path / "machine"
        script = """\
            [ -e fcn-0.1.snapshot ] && echo resumes >> ../starts || echo begins >> ../starts
            touch fcn-0.1.snapshot; sleep 1; rm fcn-0.1.snapshot; sleep 1; echo weights > fcn-0.pt
        """
        remote = {"url": str(tmp_path / "remote")}
        task = Task(
            *("train@quick-fcn-0", ("sh", "-c", script), str(machine), None),
            outputs=("fcn-0.pt",),
            store=remote,
        )
        machine.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(Store, "offer", Mock(side_effect=StoreError("503")))
            with pytest.raises(StoreError):
                list(node.run(task))
        *_, ended = node.run(replace(task, name="train@quick-fcn-0.1"))  # on another machine
        assert isinstance(ended, Ended)
        assert (tmp_path / "starts").read_text() == "begins\nresumes\n"
        monkeypatch.chdir(tmp_path)
        params = SweepParams(run=SweepRun(profiles=("quick",)), profile={"quick": SweepProfile()})
        StoreTasks(params, None, RunCosts(), remote).collect(task, ended)
        assert (tmp_path / "fcn-0.pt").read_text() == "weights\n"
        assert not list(tmp_path.glob("**/*.snapshot"))

    def test_a_machine_with_a_full_disk_refuses(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store({"url": str(tmp_path / "remote")})
        (tmp_path / "a.pt").touch()
        task = Task(
            *("train@quick-fcn-0", ("true",), str(tmp_path / "machine"), None),
            store={"url": str(tmp_path / "remote")},
            shipped=store.offer(tmp_path, ["a.pt"]),
        )
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.pt")
        monkeypatch.setattr(Store, "_download", Mock(side_effect=full))
        (ended,) = node.run(task)
        assert isinstance(ended, Ended)
        assert ended.refused
        assert "a.pt: No space left on device; make room on the disk" in ended.said

    def test_snapshots_follow_their_task(self, tmp_path: Path) -> None:
        tasks = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            tasks.append(
                Task("train@quick-fcn-0", (), str(tmp_path / name), None, outputs=("fcn-0.pt",))
            )
        one, two = (Store({"url": str(tmp_path / "remote")}) for _ in tasks)
        for step, kept in ((1, {"1"}), (2, {"1", "2"}), (3, {"2", "3"})):
            (tmp_path / "one" / f"fcn-0.{step}.snapshot").write_bytes(b"%d" % step)
            for path in (tmp_path / "one").glob("*.snapshot"):
                if path.suffixes[0][1:] not in kept:
                    path.unlink()
            one.offer_snapshots(tasks[0])
        two.offer_snapshots(tasks[1])  # it has none, and removes none
        two.fetch_snapshots(tasks[1])
        found = {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
        assert found == {"fcn-0.2.snapshot": b"2", "fcn-0.3.snapshot": b"3"}

    def test_the_last_snapshot_stays_until_a_newer_one_is_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Check a training that removes a snapshot while it is uploaded."""
        (tmp_path / "one").mkdir()
        task = Task("train@quick-fcn-0", (), str(tmp_path / "one"), None, outputs=("fcn-0.pt",))
        store = Store({"url": str(tmp_path / "remote")})
        first, second = (tmp_path / "one" / f"fcn-0.{step}.snapshot" for step in (1, 2))
        first.touch()
        store.offer_snapshots(task)
        first.rename(second)

        def remove_meanwhile(here: Path, there: str) -> None:
            raise FileNotFoundError(here)

        monkeypatch.setattr(store, "_upload", remove_meanwhile)
        store.offer_snapshots(task)
        assert store._list_snapshots("fcn-0.pt") == {first.name}


class TestTorchrun:
    task = Task("train@quick-fcn-0", ("python", "-m", "deeplab_bench", "train"), "", None)

    def test_one_process_needs_none(self) -> None:
        assert add_torchrun(self.task) == self.task

    def test_the_first_machine_is_the_host(self) -> None:
        task = Task(**vars(self.task) | {"needs": Needs(nodes=2, processes=3)})
        assert add_torchrun(task) == task  # the machines are not chosen yet
        second = add_torchrun(task, "10.0.0.1:29", 1, "10.0.0.2")
        assert second.name == "train@quick-fcn-0.1"
        assert second.command == (
            *("python", "-m", "torch.distributed.run", "--nnodes=2"),
            *("--rdzv-backend=c10d", "--rdzv-endpoint=10.0.0.1:29", "--rdzv-conf=is_host=0"),
            *("--rdzv-id=train@quick-fcn-0", "--local-addr=10.0.0.2", "--nproc-per-node=3"),
            *("-m", "deeplab_bench", "train"),
        )
