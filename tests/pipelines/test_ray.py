"""Tests of a sweep on a Ray cluster of two machines with a core each, all of them on this one."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from stub_pipeline import dvc, get_environment, list_cache, make_project, wait_for

from pipelines.sweep.store import Store, StoreError
from pipelines.sweep.task import Needs, Task
from pipelines.sweep.torchrun import add_torchrun

cluster_utils = pytest.importorskip("ray.cluster_utils")

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


@pytest.mark.timeout(600)
def test_workers_that_are_killed_change_nothing(project: Path, cluster: Any) -> None:
    expected = read_lock_of_plain_repro(project / "plain")
    settings = json.dumps({"SLEEP": "6"})
    with start(project, cluster.address, SETTINGS=settings) as process:
        chosen = random.Random(0)
        for _ in range(5):
            victim = chosen.choice(wait_for_workers(project, process))
            victim.kill()
            victim.wait()
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert err.count("it begins again") == 5
    assert (project / "dvc.lock").read_text(encoding="utf-8") == expected


def wait_for_workers(project: Path, driver: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Wait until workers of Ray run commands in the project, and return them."""
    until = time.monotonic() + 120
    while time.monotonic() < until and driver.poll() is None:
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd() == str(project) and "train.sh" in process.cmdline():
                    found.append(process.parent())
            except psutil.Error:
                continue
        workers = [parent for parent in found if parent and "ray::" in parent.name()]
        if workers:
            return workers
        time.sleep(0.1)
    raise AssertionError("no worker runs a training")


@pytest.mark.timeout(600)
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
    with start(project, cluster.address, SETTINGS=json.dumps({"SLEEP": "5"})) as process:
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
    psutil.wait_procs(left, timeout=10)
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
